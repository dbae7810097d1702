package kubernetes

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/scenarios"
)

// lab is the cluster that make lab-up has started. Without one the test is
// skipped.
func lab(t *testing.T) *api {
	t.Helper()
	if os.Getenv("LAUNCHGATE_LAB") == "" {
		t.Skip("LAUNCHGATE_LAB is not set: make lab-up starts a cluster, make test-kubernetes runs this")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(cache, "launchgate", "kubernetes-lab")
	t.Setenv("KUBECONFIG", filepath.Join(at, "kubeconfig"))
	t.Setenv("PATH", filepath.Join(at, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
	a, err := connect("", "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func labSpec(namespace string) scenarios.Kubernetes {
	return scenarios.Kubernetes{Namespace: namespace, Overlay: "lab", Replicas: 2, ReadyTimeout: scenarios.Duration(2 * time.Minute)}
}

// gone fails if a namespace still exists.
func gone(t *testing.T, a *api, namespace string) {
	t.Helper()
	there, err := a.there(t.Context(), &unstructured.Unstructured{Object: object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": namespace}}})
	if err != nil || there {
		t.Errorf("the namespace %s is left behind (%v)", namespace, err)
	}
}

// On a real cluster the service is deployed and answers, loses a pod, gets a
// bad release, and is gone at the end.
func TestLabLife(t *testing.T) {
	a := lab(t)
	n := &notes{}
	opened, err := planOf(labSpec("lab-life")).open(t.Context(), a, deploy.Setup{OnEvent: n.on, Journal: n})
	if err != nil {
		t.Fatal(err)
	}
	target := opened.(*Target)
	defer func() {
		if err := target.Stop(); err != nil {
			t.Error(err)
		}
		gone(t, a, "lab-life")
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	if err := target.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	resp, err := http.Get(target.Access().Endpoint.URL + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("it answers %s", resp.Status)
	}
	if streams, err := target.InFlight(ctx); err != nil || len(streams) != 2 {
		t.Errorf("streams %v, %v", streams, err)
	}
	victim := deploy.Victim{Replica: target.Replicas()[0].Name}
	for name, prepare := range map[string]func() (deploy.Effect, error){
		"pod-kill":    func() (deploy.Effect, error) { return target.KillReplica(ctx, victim, scenarios.Fault{}) },
		"bad-release": func() (deploy.Effect, error) { return target.RollOutBad(ctx, victim, scenarios.Fault{}) },
		"spot-preemption": func() (deploy.Effect, error) {
			return target.Preempt(ctx, deploy.Victim{Replica: target.Replicas()[1].Name}, scenarios.Fault{Notice: scenarios.Duration(2 * time.Second), For: 1})
		},
	} {
		effect, err := prepare()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, step := range []func(context.Context) (deploy.Sight, error){effect.Inject, effect.SeeInEffect, effect.Revert, effect.SeeGone} {
			seen, err := step(ctx)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Logf("%s: %s", name, seen.How)
		}
		victim.Replica = target.Replicas()[0].Name
	}
}

// A missing image and a full quota are errors soon. Both leave nothing behind.
func TestLabErrors(t *testing.T) {
	a := lab(t)
	overlay := t.TempDir()
	base, err := filepath.Abs("overlays/lab")
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(overlay, base)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ kustomization, says string }{
		"lab-image": {"images: [{name: launchgate/reference-server, newTag: absent}]\n", "cannot be pulled"},
		"lab-quota": {"", "quota of the namespace lab-quota is full"},
	} {
		t.Run(name, func(t *testing.T) {
			file := "resources: [" + relative + "]\n" + tt.kustomization
			if name == "lab-quota" {
				file = "resources: [" + relative + ", quota.yaml]\nnamespace: lab-quota\n"
				if err := os.WriteFile(filepath.Join(overlay, "quota.yaml"), []byte("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {pods: \"0\"}}\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			spec := labSpec(name)
			spec.Overlay = overlay
			target, err := planOf(spec).open(t.Context(), a, deploy.Setup{OnEvent: func(deploy.Event) {}})
			if err == nil {
				err = target.WaitReady(t.Context())
				if left := target.Stop(); left != nil {
					t.Error(left)
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v; it should say %q", err, tt.says)
			}
			gone(t, a, name)
		})
	}
}

// A run that has only the rights of the Role deploys into an existing
// namespace, kills a pod, and removes what it made.
func TestLabRole(t *testing.T) {
	a := lab(t)
	const namespace = "lab-role"
	kubectl := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(filepath.Dir(os.Getenv("KUBECONFIG")), "bin", "kubectl"), args...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	role, err := os.ReadFile("rights/role.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kubectl("", "create", "namespace", namespace)
	defer kubectl("", "delete", "namespace", namespace)
	only, _, _ := strings.Cut(string(role), "\n---")
	kubectl(strings.ReplaceAll(only, "namespace: ai-service", "namespace: "+namespace), "apply", "-f", "-")
	kubectl("", "-n", namespace, "create", "serviceaccount", "launchgate")
	kubectl("", "-n", namespace, "create", "rolebinding", "launchgate", "--role=launchgate", "--serviceaccount="+namespace+":launchgate")
	config := *a.config
	config.BearerToken = kubectl("", "-n", namespace, "create", "token", "launchgate")
	config.BearerTokenFile = ""
	limited, err := newAPI(&config, "role")
	if err != nil {
		t.Fatal(err)
	}
	spec := labSpec(namespace)
	opened, err := planOf(spec).open(t.Context(), limited, deploy.Setup{OnEvent: func(deploy.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	target := opened.(*Target)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := target.WaitReady(ctx); err != nil {
		t.Error(err)
	} else if effect, err := target.KillReplica(ctx, deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{}); err != nil {
		t.Error(err)
	} else {
		for _, step := range []func(context.Context) (deploy.Sight, error){effect.Inject, effect.SeeInEffect, effect.Revert, effect.SeeGone} {
			if _, err := step(ctx); err != nil {
				t.Error(err)
			}
		}
		// A right that the Role does not have is a clear error.
		effect, err := target.Preempt(ctx, deploy.Victim{Replica: target.Replicas()[0].Name}, scenarios.Fault{For: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := effect.Inject(ctx); err == nil || !strings.Contains(err.Error(), "role.yaml") {
			t.Errorf("a taint without rights: %v", err)
		}
	}
	if err := target.Stop(); err != nil {
		t.Error(err)
	}
	list, err := a.dynamic.Resource(podsGVR).Namespace(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) > 0 && list.Items[0].GetDeletionTimestamp() == nil {
		t.Errorf("pods are left behind: %v, %v", list, err)
	}
}
