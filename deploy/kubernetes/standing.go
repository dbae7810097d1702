package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Standing is a deployment on a cluster that stays there when the command that made
// it has ended. A file in a folder says what has to be removed.
type Standing struct {
	Spec  scenarios.Kubernetes `json:"spec"`
	Since time.Time            `json:"since"`
	Ready bool                 `json:"ready"` // false where the command was ended before
	Made  deploy.Undo          `json:"made"`
	file  string
}

const standingFile = "kubernetes.json"

// FindStanding reads the deployment of a folder; deploy.ErrNotStanding where none is.
func FindStanding(dir string) (Standing, error) {
	s := Standing{file: filepath.Join(dir, standingFile)}
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, deploy.ErrNotStanding
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, words.Errorf("%s: %s", s.file, err)
	}
	return s, nil
}

// Begin notes what is going to be made, before it is.
func (s *Standing) Begin(_, _, _ string, undo []deploy.Undo) error {
	s.Made = undo[0]
	return s.write()
}

// End forgets a deployment that is gone.
func (s *Standing) End(string) error { return os.Remove(s.file) }

func (s *Standing) write() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(s.file, 0o600, durable.Content(append(b, '\n')))
}

// Up deploys the bundled service and returns when every pod is ready. Where that
// fails, what it made is removed.
func Up(ctx context.Context, dir string, spec scenarios.Kubernetes) (Standing, error) {
	if spec.Deploy != scenarios.DeployBundled {
		return Standing{}, words.Errorf("found deploy: %s, expected %s: up deploys the bundled service", spec.Deploy, scenarios.DeployBundled)
	}
	a, err := connect("", spec.Context)
	if err != nil {
		return Standing{}, err
	}
	return up(ctx, a, dir, spec)
}

func up(ctx context.Context, a *api, dir string, spec scenarios.Kubernetes) (Standing, error) {
	s := Standing{Spec: spec, Since: time.Now().UTC().Truncate(time.Second), file: filepath.Join(dir, standingFile)}
	opened, err := plan{spec}.open(ctx, a, deploy.Setup{OnEvent: func(deploy.Event) {}, Journal: &s})
	if err != nil {
		return s, err
	}
	t := opened.(*Target)
	if err := t.WaitReady(ctx); err != nil {
		return s, errors.Join(err, t.Stop())
	}
	t.leave()
	s.Ready = true
	return s, s.write()
}

// leave ends what runs on this machine, and has the service stay.
func (t *Target) leave() {
	t.way.close()
	t.stop()
	t.running.Wait()
}

// Pods are how many pods of the deployment are ready, and how many there are to be.
func (s Standing) Pods(ctx context.Context) (ready, want int, err error) {
	a, err := s.connect()
	if err != nil {
		return 0, 0, err
	}
	return a.readyPods(ctx, s.Spec)
}

func (a *api) readyPods(ctx context.Context, spec scenarios.Kubernetes) (ready, want int, err error) {
	d, err := (&Target{plan: plan{spec}, api: a}).deployment(ctx)
	if err != nil {
		return 0, 0, err
	}
	want = 1
	if d.Spec.Replicas != nil {
		want = int(*d.Spec.Replicas)
	}
	return int(d.Status.ReadyReplicas), want, nil
}

func (s Standing) connect() (*api, error) {
	to, err := leftBy(s.Made)
	if err != nil {
		return nil, err
	}
	return connect(to.Kubeconfig, to.Context)
}

// Down removes the deployment and returns when nothing of it is there.
func (s Standing) Down(ctx context.Context) error {
	a, err := s.connect()
	if err != nil {
		return err
	}
	return s.down(ctx, a)
}

func (s Standing) down(ctx context.Context, a *api) error {
	to, err := leftBy(s.Made)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, removeWithin, words.Errorf("objects with the label %s=%s are still there %s after they were removed", runLabel, to.Name, removeWithin))
	defer cancel()
	if err := a.removeRun(ctx, to); err != nil {
		return err
	}
	for _, k := range to.Made {
		for {
			list, err := a.in(k, to.Namespace).List(ctx, metav1.ListOptions{LabelSelector: runLabel + "=" + to.Name})
			if apierrors.IsForbidden(err) && !k.Namespaced || err == nil && len(list.Items) == 0 {
				break // without the right to list them, the run has not made one
			}
			if err != nil && ctx.Err() == nil {
				return a.explain(err)
			}
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return s.End("")
}

// in is the client for a kind, in a namespace where it has one.
func (a *api) in(k kind, namespace string) dynamic.ResourceInterface {
	if !k.Namespaced {
		return a.dynamic.Resource(k.Resource)
	}
	return a.dynamic.Resource(k.Resource).Namespace(namespace)
}
