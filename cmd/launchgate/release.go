package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/run"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// askPerSecond is below the guide's limit for one address.
const askPerSecond = 8

func releaseCommand(out io.Writer, code *int) *cobra.Command {
	var dir, config string
	var r deploy.Release
	cmd := &cobra.Command{
		Use:   "release --model FILE --version V | --config FILE",
		Short: "Roll out a model or new limits to the running deployment; bad ones are rolled back",
		Long: `Release gives the new model to one replica after another. The first is a canary: it
must get ready, and must do as well as the others on users' requests and on a few
questions of launchgate's own. A model that is corrupt, answers with errors or is slow
is rolled back automatically. Release says why, and how long that took.

With --config the gateway gets new limits without a restart. An invalid file is
refused.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (r.Model == "") == (config == "") {
				return errors.New("release needs one of --model and --config")
			}
			at, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			s, err := deploy.FindStanding(at)
			if errors.Is(err, deploy.ErrNotStanding) {
				return fmt.Errorf("nothing is up in %s: launchgate up starts it, and --dir names another folder", at)
			}
			if err != nil {
				return err
			}
			end, err := releaseTo(cmd.Context(), s, r, config, out)
			if err != nil {
				return err
			}
			if !end.Live {
				*code = checklist.ExitFail
				if end.RollBack > 0 {
					fmt.Fprintf(out, "rolled back in %.1f s, %.1f s after it began: %s\n", end.RollBack, end.Took, end.Why)
					return nil
				}
				fmt.Fprintf(out, "rejected before anything was changed: %s\n", end.Why)
				return nil
			}
			fmt.Fprintf(out, "live after %.1f s: %s\n", end.Took, end.Why)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", standingAt, "the `folder` of the deployment, as given to up")
	f.StringVar(&r.Model, "model", "", "the GGUF `file` or Hugging Face folder of the new model")
	f.StringVar(&r.Version, "version", "", "the `version` under which the model registry lists it")
	f.StringVar(&r.SHA256, "sha256", "", "the SHA-256 `hash` that the file must have")
	f.StringVar(&config, "config", "", "a `file` of limits, like deploy/gateway.yaml")
	return cmd
}

func releaseTo(ctx context.Context, s deploy.Standing, r deploy.Release, config string, out io.Writer) (deploy.Released, error) {
	if config != "" {
		file, err := filepath.Abs(config) // the keeper has another working directory
		if err != nil {
			return deploy.Released{}, err
		}
		return s.Reconfigure(ctx, file)
	}
	var err error
	if r.Model, err = filepath.Abs(r.Model); err != nil {
		return deploy.Released{}, err
	}
	e, keys := scenarios.Endpoint{URL: s.URL, CAFile: s.CA}, map[string]string{}
	if s.KeyFile != "" {
		key, err := os.ReadFile(s.KeyFile)
		if err != nil {
			return deploy.Released{}, err
		}
		e.APIKeyEnv = "LAUNCHGATE_RELEASE_KEY"
		keys[e.APIKeyEnv] = strings.TrimSpace(string(key))
	}
	asking, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	var askErr error
	beside.Go(func() { askErr = run.Ask(asking, e, keys, askPerSecond) })
	end, err := s.Release(ctx, r, func(step words.Sentence) { fmt.Fprintln(out, step) })
	stop()
	beside.Wait()
	if askErr != nil && err == nil && !end.Live {
		end.Why.Sentence = words.Say("%s (and nobody could ask it: %s)", end.Why.Sentence, askErr)
	}
	return end, err
}
