package kubernetes

import (
	"context"
	"embed"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// rendered has the output of kustomize for base and for each overlay. A test
// renders them again and compares. The program does not contain kustomize's
// library: that loads Go plugins, which makes any program half as large again.
//
//go:embed rendered
var rendered embed.FS

// Overlays are the names of the built-in overlays; base is the guide's own.
func Overlays() (names []string) {
	entries, err := rendered.ReadDir("rendered")
	if err != nil { // cannot happen: they are embedded
		return nil
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Render makes the objects of an overlay. The overlay is built in, or a user's
// folder with a kustomization. The objects are in the order in which they must
// be made.
func Render(ctx context.Context, spec scenarios.Kubernetes) ([]*unstructured.Unstructured, error) {
	var src []byte
	var err error
	if slices.Contains(Overlays(), spec.Overlay) {
		src, err = rendered.ReadFile("rendered/" + spec.Overlay + ".yaml")
	} else {
		src, err = kustomize(ctx, spec.Overlay)
	}
	if err != nil {
		return nil, err
	}
	objects, err := decode(string(src))
	if err != nil {
		return nil, words.Errorf("the manifests of %s: %s", spec.Overlay, err)
	}
	for _, o := range objects {
		if err := adapt(o, spec); err != nil {
			return nil, words.Errorf("the manifests of %s: %s", spec.Overlay, err)
		}
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects, nil
}

// decode reads the objects of manifests.
func decode(manifests string) (objects []*unstructured.Unstructured, err error) {
	for doc := range strings.SplitSeq("\n"+manifests, "\n---") {
		b, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(b)) == "null" { // blank, or only comments
			continue
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(b); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// kustomize renders a folder with kubectl or kustomize, whichever is on the
// PATH.
func kustomize(ctx context.Context, folder string) ([]byte, error) {
	if _, err := os.Stat(folder); err != nil {
		return nil, words.Errorf("target.kubernetes.overlay: found %q, expected one of %s, or a folder with a kustomization.yaml: %s", folder, strings.Join(Overlays(), ", "), err)
	}
	for _, argv := range [][]string{{"kubectl", "kustomize", folder}, {"kustomize", "build", folder}} {
		if _, err := exec.LookPath(argv[0]); err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		if err != nil {
			return nil, words.Errorf("the manifests of %s: %s", folder, err)
		}
		return out, nil
	}
	return nil, words.Errorf("the manifests of %s cannot be rendered: neither kubectl nor kustomize is on the PATH", folder)
}

// rank sorts the namespace and what pods need before the pods.
func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace":
		return 0
	case "Deployment", "StatefulSet", "Job", "HorizontalPodAutoscaler":
		return 2
	}
	return 1
}

// adapt gives an object the namespace and the number of replicas that the gate
// names.
func adapt(o *unstructured.Unstructured, spec scenarios.Kubernetes) error {
	if o.GetKind() == "Namespace" {
		o.SetName(spec.Namespace)
	} else if o.GetNamespace() != "" {
		o.SetNamespace(spec.Namespace)
	}
	if spec.Replicas == 0 {
		return nil
	}
	n := int64(spec.Replicas)
	switch {
	case o.GetKind() == "Deployment" && o.GetName() == deploymentName:
		return unstructured.SetNestedField(o.Object, n, "spec", "replicas")
	case o.GetKind() == "HorizontalPodAutoscaler" && o.GetName() == deploymentName:
		if err := unstructured.SetNestedField(o.Object, n, "spec", "minReplicas"); err != nil {
			return err
		}
		if most, found, err := unstructured.NestedInt64(o.Object, "spec", "maxReplicas"); err == nil && found && most >= n {
			return nil
		}
		return unstructured.SetNestedField(o.Object, n, "spec", "maxReplicas")
	case o.GetKind() == "PodDisruptionBudget" && o.GetName() == deploymentName && n < 3:
		return unstructured.SetNestedField(o.Object, n-1, "spec", "minAvailable")
	}
	return nil
}

// deploymentName is the name of the bundled Deployment, its Service and the
// objects that concern them.
const deploymentName = "inference-service"

// ServicePort is the port of the bundled Service that speaks HTTP.
const ServicePort = 8080
