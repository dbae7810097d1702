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
		Short: "Balance requests over replicas, with API keys and limits",
		Long: `gateway sends each request to the ready replica with the fewest requests under way.
If that replica fails before the first byte of its answer, gateway tries another one.
/status on the metrics port shows the state of each replica.

With --ledger, gateway requires API keys (made by reference-server ledger add-key),
enforces the limits of --config, and stores usage and background responses. Without
--ledger, it serves everybody.`,
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
	f.StringVar(&o.addr, "addr", "127.0.0.1:8000", "address of the API")
	f.StringVar(&o.metricsAddr, "metrics-addr", "127.0.0.1:9091", "address of the metrics and of /status")
	f.StringArrayVar(&replicas, "replica", nil, "a replica, as NAME=URL; repeat it for each replica")
	f.StringVar(&o.ledger, "ledger", "", "the ledger: a SQLite file or a postgres:// URL; several gateways may share it")
	f.StringVar(&o.config, "config", "", "a file of limits, like deploy/gateway.yaml; reloaded at SIGHUP")
	f.StringVar(&o.audit, "audit-log", "audit.log", "the audit log, with a line for each request (only with --ledger)")
	f.StringVar(&o.secretFile, "gateway-secret-file", "", "a `file` with the secret shared with the replicas (or GATEWAY_SECRET)")
	f.StringVar(&o.devTLS, "dev-tls", "", "a folder for a development CA and certificate, created if there is no valid one")
	f.StringVar(&o.cert, "tls-cert", "", "the certificate of the API, reloaded when the file changes; without it and without --dev-tls there is no TLS")
	f.StringVar(&o.key, "tls-key", "", "the private key of --tls-cert")
	f.StringVar(&level, "log-level", environment("LOG_LEVEL", "info"), "debug, info, warn or error")
	return cmd
}

func parseReplicas(list []string) ([]gateway.Replica, error) {
	if len(list) == 0 {
		return nil, errors.New("no replica was given, expected at least one --replica NAME=URL")
	}
	var out []gateway.Replica
	seen := map[string]bool{}
	for _, s := range list {
		name, at, ok := strings.Cut(s, "=")
		u, err := url.Parse(at)
		if !ok || name == "" || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("--replica: found %q, expected NAME=URL, such as replica-0=http://127.0.0.1:8080", s)
		}
		if seen[name] {
			return nil, fmt.Errorf("--replica: the name %s occurs twice, expected a different name for each replica", name)
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

// tls is the gateway's certificate, nil for plain HTTP.
func (o gatewayOptions) tls(log *slog.Logger) (*tls.Config, error) {
	switch {
	case o.devTLS != "" && o.cert != "":
		return nil, errors.New("found both --dev-tls and --tls-cert, expected only one of them")
	case o.devTLS != "":
		return gateway.DevTLS(o.devTLS, log)
	case o.cert != "":
		return gateway.LoadTLS(o.cert, o.key, log)
	}
	return nil, nil
}

// guard puts the ledger and the limits in front of g. closeAll must be called
// after g has ended.
func (o gatewayOptions) guard(ctx context.Context, g *gateway.Gateway) (closeAll func(), err error) {
	if o.ledger == "" {
		if o.config != "" {
			return nil, errors.New("--config needs --ledger, because its limits apply to API keys")
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

// name identifies the gateway among those of a ledger. A restarted gateway has
// the same name, so that it gets its share of the limits back at once.
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
// environment. It is empty if there is none.
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
	back, err := gateway.Listen(o.metricsAddr, g.Metrics(), nil, log)
	if err != nil {
		return err
	}
	defer back.Close()
	log.Info("listening", "address", front.Addr(), "tls", certificate != nil, "keys", o.ledger != "", "metrics", urlOf(back, nil)+"/metrics", "replicas", len(o.replicas))

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
		}
	}
}

// reconfigure reads the limits again. An invalid file changes nothing.
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
