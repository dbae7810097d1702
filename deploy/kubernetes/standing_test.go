package kubernetes

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

func standing() scenarios.Kubernetes {
	return planOf(scenarios.Kubernetes{ReadyTimeout: scenarios.Duration(20 * time.Second)}).spec
}

// A deployment stays when the command that made it has ended; another process finds
// it by the folder, and removes it, once or twice.
func TestUpAndDown(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	if _, err := FindStanding(dir); !errors.Is(err, deploy.ErrNotStanding) {
		t.Fatal(err)
	}
	if _, err := up(t.Context(), f.api(), dir, standing()); err != nil {
		t.Fatal(err)
	}
	s, err := FindStanding(dir)
	if err != nil || !s.Ready || s.Spec.Namespace != "ai-service" {
		t.Fatalf("%+v, %v", s, err)
	}
	f.mu.Lock()
	f.objects["ai-service/deployments/inference-service"]["status"].(object)["readyReplicas"] = 3
	f.objects["ai-service/configmaps/theirs"] = object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "theirs", "namespace": "ai-service"}}
	f.mu.Unlock()
	if ready, want, err := f.api().readyPods(t.Context(), s.Spec); err != nil || ready != 3 || want != 3 {
		t.Errorf("%d of %d pods are ready: %v", ready, want, err)
	}
	if err := s.down(t.Context(), f.api()); err != nil {
		t.Fatal(err)
	}
	if left := slices.Sorted(maps.Keys(f.objects)); !slices.Equal(left, []string{"/nodes/node-a"}) {
		t.Errorf("left behind: %v", left)
	}
	if _, err := FindStanding(dir); !errors.Is(err, deploy.ErrNotStanding) {
		t.Error(err)
	}
}

// A deployment that does not get ready is removed, and the folder has nothing to take
// down; what the cluster does not let go of is said, and can be tried again.
func TestUpThatFails(t *testing.T) {
	f, dir := newFake(t), t.TempDir()
	f.image = "ImagePullBackOff"
	if _, err := up(t.Context(), f.api(), dir, standing()); err == nil || !strings.Contains(err.Error(), "cannot be pulled") {
		t.Fatal(err)
	}
	if left := slices.Sorted(maps.Keys(f.objects)); !slices.Equal(left, []string{"/nodes/node-a"}) {
		t.Errorf("left behind: %v", left)
	}
	if _, err := FindStanding(dir); !errors.Is(err, deploy.ErrNotStanding) {
		t.Error(err)
	}
	f.image = ""
	s, err := up(t.Context(), f.api(), dir, standing())
	if err != nil {
		t.Fatal(err)
	}
	f.forbid = "apps/deployments delete"
	if err := s.down(t.Context(), f.api()); err == nil || !strings.Contains(err.Error(), "rights/role.yaml") {
		t.Error(err)
	}
	f.forbid = ""
	if s, err = FindStanding(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.down(t.Context(), f.api()); err != nil {
		t.Error(err)
	}
}
