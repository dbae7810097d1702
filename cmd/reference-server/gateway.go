package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/reference-server/gateway"
)

func gatewayCommand(errOut io.Writer) *cobra.Command {
	var addr, metricsAddr, level string
	var replicas []string
	cmd := &cobra.Command{
		Use:   "gateway --replica NAME=URL …",
		Short: "Balance over several replicas",
		Long: `gateway sends every request to the ready replica with the fewest under way,
and to another one if that fails before its first byte. Its metrics port tells
on /status what it thinks of each replica.`,
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
			return runGateway(cmd.Context(), addr, metricsAddr, list, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "addr", "127.0.0.1:8000", "address of the front door")
	f.StringVar(&metricsAddr, "metrics-addr", "127.0.0.1:9091", "address of metrics and /status")
	f.StringArrayVar(&replicas, "replica", nil, "a replica, as NAME=URL; once for each")
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

func runGateway(ctx context.Context, addr, metricsAddr string, replicas []gateway.Replica, log *slog.Logger) error {
	g := gateway.New(replicas, log)
	front, err := listen(addr, g.Handler())
	if err != nil {
		return err
	}
	defer front.Close()
	back, err := listen(metricsAddr, g.Metrics())
	if err != nil {
		return err
	}
	defer back.Close()
	log.Info("listening", "door", front.url(), "metrics", back.url()+"/metrics", "replicas", len(replicas))

	watching, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { g.Run(watching); close(done) }()
	defer func() { stop(); <-done }()
	select {
	case <-ctx.Done():
	case err := <-front.failed:
		return err
	case err := <-back.failed:
		return err
	}
	return front.drain(drainFor)
}
