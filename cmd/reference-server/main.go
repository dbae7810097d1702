// Command reference-server is the inference service that comes with launchgate.
// serve is a replica, and gateway the gateway in front of several.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := referenceServer(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "reference-server: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// referenceServer is the program. It returns when ctx ends and everything it
// started has ended too.
func referenceServer(ctx context.Context, args []string, out, errOut io.Writer) error {
	root := &cobra.Command{
		Use:   "reference-server",
		Short: "An inference server with an OpenAI-compatible API, and a gateway",
		Long: `reference-server serves language models of the Llama family through an
OpenAI-compatible API. Try it:

  reference-server serve
  curl http://127.0.0.1:8080/v1/chat/completions -d \
    '{"messages":[{"role":"user","content":"Tell me a story."}],"stream":true}'`,
		Version:      version.Short(),
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCommand(errOut), gatewayCommand(errOut), ledgerCommand(out, errOut), ballastCommand(os.Stdin, out), modelFileCommand(out), deepenCommand(), needCommand(out), versionCommand(out))
	return root.ExecuteContext(ctx)
}

// newLog writes to w at the level that LOG_LEVEL or a flag names.
func newLog(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("found log level %q, expected debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// environment is the default of a flag: an environment variable, or else a
// value.
func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
