// Command launchgate answers one question before an AI inference service goes
// live: may it launch?
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/launchgate/launchgate/internal/words"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		cancel(words.Errorf("the signal %s", <-signals))
		// timeout(1) signals the process and then its group, so the same
		// request arrives twice. After that, another signal may end the process
		// at once: the kernel ends the deployment with it.
		time.Sleep(time.Second)
		for len(signals) > 0 {
			<-signals
		}
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(launchgate(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
