package kubernetes

import (
	"embed"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

// Manifests are the base and its overlays, which kubectl apply -k takes as well.
//
//go:embed base overlays
var Manifests embed.FS

// Overlays are the names of those that are built in; base is the guide's own.
func Overlays() []string {
	names := []string{"base"}
	entries, err := Manifests.ReadDir("overlays")
	if err != nil { // they are in the program
		return names
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Render makes the objects of an overlay: of one that is built in, or of a folder
// with a kustomization of one's own. They are in the order in which they have to be
// made.
func Render(spec scenarios.Kubernetes) ([]*unstructured.Unstructured, error) {
	files, at := filesys.FileSystem(filesys.MakeFsInMemory()), "overlays/"+spec.Overlay
	switch {
	case spec.Overlay == "base":
		at = "base"
		fallthrough
	case slices.Contains(Overlays(), spec.Overlay):
		err := fs.WalkDir(Manifests, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := Manifests.ReadFile(path)
			if err != nil {
				return err
			}
			return files.WriteFile(path, b)
		})
		if err != nil {
			return nil, err
		}
	default:
		if _, err := os.Stat(spec.Overlay); err != nil {
			return nil, words.Errorf("target.kubernetes.overlay: found %q, expected one of %s, or a folder with a kustomization.yaml: %s", spec.Overlay, strings.Join(Overlays(), ", "), err)
		}
		files, at = filesys.MakeFsOnDisk(), spec.Overlay
	}
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, at)
	if err != nil {
		return nil, words.Errorf("the manifests of %s: %s", spec.Overlay, err)
	}
	var objects []*unstructured.Unstructured
	for _, r := range made.Resources() {
		m, err := r.Map()
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{Object: m}
		if err := adapt(o, spec); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects, nil
}

// rank has a namespace, and what pods need, be there before them.
func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace":
		return 0
	case "Deployment", "StatefulSet", "Job", "HorizontalPodAutoscaler":
		return 2
	}
	return 1
}

// adapt puts an object into the namespace that the gate names, with as many
// replicas as it says.
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

// deploymentName is what the bundled Deployment, its Service and what is about them
// are called.
const deploymentName = "inference-service"
