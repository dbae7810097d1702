// Command launchgate answers one question before an AI inference service goes
// live: may it launch?
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(fmt.Errorf("stopped by signal: %s", <-signals))
		// The deployment dies with this process, so a second signal may end it
		// at once without leaving anything behind.
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(launchgate(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
