package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/access"
	"github.com/launchgate/launchgate/reference-server/gateway"
	"github.com/launchgate/launchgate/reference-server/ledger"
)

func gatewayCommand(errOut io.Writer) *cobra.Command {
	var o gatewayOptions
	var level string
	var replicas []string
	cmd := &cobra.Command{
		Use:   "gateway --replica NAME=URL …",
		Short: "Balance over several replicas",
		Long: `gateway sends every request to the ready replica with the fewest under way,
and to another one if that fails before its first byte. Its metrics port tells
on /status what it thinks of each replica.

With --ledger it asks for API keys (reference-server ledger add-key makes them),
holds callers to the limits of --config, and keeps usage and background
responses; without it, it lets everybody pass.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(errOut, level)
			if err != nil {
				return err
			}
			list, err := parseReplicas(replicas)
			if err != nil {
				return err
			}
			o.replicas = list
			return runGateway(cmd.Context(), o, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:8000", "address of the front door")
	f.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9091", "address of metrics and /status")
	f.StringArrayVar(&replicas, "replica", nil, "a replica, as NAME=URL; once for each")
	f.StringVar(&o.ledger, "ledger", "", "the ledger: a SQLite file or a postgres:// URL; several gateways may share it")
	f.StringVar(&o.config, "config", "", "limits, as deploy/gateway.yaml has them, read again at SIGHUP; the defaults are the guide's")
	f.StringVar(&o.audit, "audit-log", "audit.log", "where a line is appended for each request, where there is a ledger")
	f.StringVar(&o.secretFile, "gateway-secret-file", "", "a `file` with the secret by which replicas know their gateway (or GATEWAY_SECRET)")
	f.StringVar(&o.devTLS, "dev-tls", "", "a folder for a development CA and certificate, made where none is valid")
	f.StringVar(&o.cert, "tls-cert", "", "a certificate, read again when its file changes; without one and without --dev-tls the door speaks plain HTTP")
	f.StringVar(&o.key, "tls-key", "", "its key")
	f.StringVar(&level, "log-level", environment("LOG_LEVEL", "info"), "debug, info, warn or error")
	return cmd
}

func parseReplicas(list []string) ([]gateway.Replica, error) {
	if len(list) == 0 {
		return nil, errors.New("a gateway needs at least one --replica NAME=URL")
	}
	var out []gateway.Replica
	seen := map[string]bool{}
	for _, s := range list {
		name, at, ok := strings.Cut(s, "=")
		u, err := url.Parse(at)
		if !ok || name == "" || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--replica %q is not like replica-0=http://127.0.0.1:8080", s)
		}
		if seen[name] {
			return nil, fmt.Errorf("--replica: the name %s is there twice", name)
		}
		seen[name] = true
		out = append(out, gateway.Replica{Name: name, URL: u})
	}
	return out, nil
}

// gatewayOptions are its flags.
type gatewayOptions struct {
	addr, metricsAddr     string
	ledger, config, audit string
	devTLS, cert, key     string
	secretFile            string
	replicas              []gateway.Replica
}

// tls is the door's certificate, nil for plain HTTP.
func (o gatewayOptions) tls(log *slog.Logger) (*tls.Config, error) {
	switch {
	case o.devTLS != "" && o.cert != "":
		return nil, errors.New("--dev-tls and --tls-cert exclude each other")
	case o.devTLS != "":
		return gateway.DevTLS(o.devTLS, log)
	case o.cert != "":
		return gateway.LoadTLS(o.cert, o.key, log)
	}
	return nil, nil
}

// guard puts the ledger and the limits in front of g. What close returns is
// to be called once g has ended.
func (o gatewayOptions) guard(ctx context.Context, g *gateway.Gateway) (closeAll func(), err error) {
	if o.ledger == "" {
		if o.config != "" {
			return nil, errors.New("--config limits callers by their keys, so it needs a --ledger")
		}
		return func() {}, nil
	}
	config := gateway.DefaultConfig()
	if o.config != "" {
		if config, err = gateway.ReadConfig(o.config); err != nil {
			return nil, err
		}
	}
	audit, err := gateway.OpenAuditLog(o.audit, config.Audit.Megabytes, config.Audit.Files)
	if err != nil {
		return nil, err
	}
	books, err := ledger.Open(ctx, o.ledger)
	if err != nil {
		audit.Close()
		return nil, err
	}
	g.Guard(o.name(), config, books, audit)
	return func() { books.Close(); audit.Close() }, nil
}

// name is the gateway's among those of a ledger. One that is started again has
// the name of before, so that it takes its share back at once.
func (o gatewayOptions) name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if strings.HasSuffix(o.addr, ":0") { // any port
		return fmt.Sprintf("%s/%s/%d", host, o.addr, os.Getpid())
	}
	return host + "/" + o.addr
}

// gatewaySecret is the secret of gateway and replicas, from a file or the
// environment; empty where there is none.
func gatewaySecret(file string) (string, error) {
	if file != "" {
		return access.ReadSecret(file)
	}
	if secret := os.Getenv("GATEWAY_SECRET"); secret != "" {
		return access.CheckSecret(secret)
	}
	return "", nil
}

func runGateway(ctx context.Context, o gatewayOptions, log *slog.Logger) error {
	secret, err := gatewaySecret(o.secretFile)
	if err != nil {
		return err
	}
	g := gateway.New(o.replicas, log)
	g.Secret(secret)
	closeAll, err := o.guard(ctx, g)
	if err != nil {
		return err
	}
	defer closeAll()
	certificate, err := o.tls(log)
	if err != nil {
		return err
	}
	front, err := g.Listen(o.addr, certificate)
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := listen(o.metricsAddr, g.Metrics(), nil)
	if err != nil {
		return err
	}
	defer back.Close()
	log.Info("listening", "door", front.Addr(), "tls", certificate != nil, "keys", o.ledger != "", "metrics", back.url()+"/metrics", "replicas", len(o.replicas))

	watching, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(watching); close(done) }()
	defer func() { stop(); <-done }()
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGHUP)
	defer signal.Stop(again)
	for {
		select {
		case <-ctx.Done():
			return drain(front, drainFor)
		case <-again:
			o.reconfigure(g, log)
		case err := <-back.failed:
			return err
		}
	}
}

// reconfigure reads the limits again. A file that means nothing changes nothing.
func (o gatewayOptions) reconfigure(g *gateway.Gateway, log *slog.Logger) {
	if o.config == "" {
		log.Warn("there is no --config to read again")
		return
	}
	config, err := gateway.ReadConfig(o.config)
	if err != nil {
		log.Error("the limits stay as they were", "why", err)
		return
	}
	g.Reconfigure(config)
	log.Info("limits are read again", "from", o.config)
}
