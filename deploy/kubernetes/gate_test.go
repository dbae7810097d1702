package kubernetes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
	"github.com/launchgate/launchgate/security"
)

// documents are the objects of a file, as JSON.
func documents(t *testing.T, src []byte) (all []object) {
	t.Helper()
	for doc := range strings.SplitSeq("\n"+string(src), "\n---") {
		b, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var o object
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatal(err)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

// strictly decodes a part of an object as the API server does, which refuses a field
// that it does not know.
func strictly[T any](t *testing.T, v any) (into T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&into); err != nil {
		t.Fatal(err)
	}
	return into
}

// gateOf is the gate that a pod plays, from the ConfigMap that it mounts.
func gateOf(t *testing.T, pod corev1.PodSpec, configs map[string]object) scenarios.Gate {
	t.Helper()
	c := pod.Containers[0]
	if len(c.Args) != 2 || c.Args[0] != "run" {
		t.Fatalf("it runs launchgate %v", c.Args)
	}
	for _, m := range c.VolumeMounts {
		name, below := strings.CutPrefix(c.Args[1], m.MountPath+"/")
		if !below {
			continue
		}
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 || pod.Volumes[i].ConfigMap == nil {
			t.Fatalf("%s is of no ConfigMap", m.Name)
		}
		src, ok := configs[pod.Volumes[i].ConfigMap.Name]["data"].(object)[name].(string)
		if !ok {
			t.Fatalf("the ConfigMap %s has no %s", pod.Volumes[i].ConfigMap.Name, name)
		}
		gate, err := scenarios.Parse(name, []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		return gate
	}
	t.Fatalf("%s is in no volume", c.Args[1])
	return scenarios.Gate{}
}

// scanned fails for every finding of launchgate scan in manifests.
func scanned(t *testing.T, manifests []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(file, manifests, 0o600); err != nil {
		t.Fatal(err)
	}
	safe := false
	err := security.Run(t.Context(), security.Options{Target: security.Target{URL: "http://127.0.0.1:1"}, Scan: scenarios.Scan{Only: []string{"manifests"}, Manifests: file}, Clock: recording.NewClock(), Tell: func(string) {},
		Record: func(r recording.ScanResult) {
			if r.Check == "manifests" {
				safe = r.Outcome == recording.ScanSafe
				for _, finding := range r.Findings {
					t.Errorf("%+v", finding)
				}
			}
		}})
	if err != nil || !safe {
		t.Errorf("it was not scanned, or did not pass: %v", err)
	}
}

// The gate as a Job has all that it names, plays a gate that is valid, reaches the
// service from within, runs once, and the scan of manifests finds nothing in it.
func TestTheGateAsAJob(t *testing.T) {
	src, err := os.ReadFile("testdata/gate.yaml") // a test in rendering holds it to the folder gate
	if err != nil {
		t.Fatal(err)
	}
	scanned(t, src)
	there, configs := map[string]bool{}, map[string]object{}
	var job batchv1.Job
	for _, o := range documents(t, src) {
		name := o["metadata"].(object)["name"].(string)
		there[o["kind"].(string)+"/"+name] = true
		if in := o["metadata"].(object)["namespace"]; in != "ai-service" && o["kind"] != "Namespace" && o["kind"] != "ClusterRole" {
			t.Errorf("%s %s is in the namespace %v", o["kind"], name, in)
		}
		switch o["kind"] {
		case "ConfigMap":
			configs[name] = o
		case "Job":
			job = strictly[batchv1.Job](t, o)
		}
	}
	pod := job.Spec.Template.Spec
	for _, want := range []string{"ServiceAccount/" + pod.ServiceAccountName, "Role/launchgate", "RoleBinding/launchgate", "PersistentVolumeClaim/launchgate-runs", "NetworkPolicy/launchgate-gate", "Namespace/ai-service"} {
		if !there[want] {
			t.Errorf("it lacks %s", want)
		}
	}
	if *job.Spec.BackoffLimit != 0 || pod.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("a verdict is tried again: %d, %s", *job.Spec.BackoffLimit, pod.RestartPolicy)
	}
	gate := gateOf(t, pod, configs)
	if k := gate.Target.Kubernetes; k == nil || k.Access != scenarios.AccessInCluster || gate.Resolved().Target.Kubernetes.Namespace != "ai-service" {
		t.Errorf("it drives %+v", gate.Target)
	}
	reader, err := os.ReadFile("gate/reader.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if pod := strictly[corev1.Pod](t, documents(t, reader)[0]); !there["PersistentVolumeClaim/"+pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName] {
		t.Errorf("the reader shows %+v", pod.Spec.Volumes)
	}
}

// Each example has a pod that plays the gate beside it with the rights of this folder,
// and that is restricted.
func TestExamples(t *testing.T) {
	src, err := os.ReadFile("examples/gate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	configs := map[string]object{}
	for _, o := range documents(t, src) {
		if o["kind"] == "ConfigMap" {
			configs[o["metadata"].(object)["name"].(string)] = o
		}
	}
	pods := map[string]corev1.PodTemplateSpec{}
	for file, want := range map[string][]string{"argo-rollouts.yaml": {"AnalysisTemplate", "Rollout"}, "helm-test.yaml": {"Pod"}, "flagger.yaml": {"Canary"}} {
		example, err := os.ReadFile(filepath.Join("examples", file))
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, o := range documents(t, example) {
			kinds = append(kinds, o["kind"].(string))
			if o["metadata"].(object)["namespace"] != "ai-service" {
				t.Errorf("%s: %v is in another namespace", file, o["kind"])
			}
			switch o["kind"] {
			case "AnalysisTemplate":
				metric := o["spec"].(object)["metrics"].([]any)[0].(object)
				job := strictly[batchv1.JobSpec](t, metric["provider"].(object)["job"].(object)["spec"])
				if *job.BackoffLimit != 0 {
					t.Errorf("%s: a verdict is tried again", file)
				}
				pods[file] = job.Template
			case "Pod":
				pod := strictly[corev1.Pod](t, o)
				if pod.Annotations["helm.sh/hook"] != "test" {
					t.Errorf("%s: %v", file, pod.Annotations)
				}
				pods[file] = corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}
			}
		}
		if !slices.Equal(kinds, want) {
			t.Errorf("%s has %v, want %v", file, kinds, want)
		}
	}
	for file, pod := range pods {
		gate := gateOf(t, pod.Spec, configs)
		if k := gate.Target.Kubernetes; k == nil || k.Deploy != scenarios.DeployNone || k.Access != scenarios.AccessInCluster {
			t.Errorf("%s drives %+v", file, gate.Target)
		}
		if pod.Spec.ServiceAccountName != "launchgate" || pod.Labels["launchgate.dev/client"] != "true" {
			t.Errorf("%s: account %s, labels %v", file, pod.Spec.ServiceAccountName, pod.Labels)
		}
		b, err := json.Marshal(object{"apiVersion": "batch/v1", "kind": "Job", "metadata": object{"name": "j", "namespace": "ai-service"}, "spec": object{"template": pod}})
		if err != nil {
			t.Fatal(err)
		}
		scanned(t, fmt.Appendf(src, "\n---\n%s\n", b))
	}
}
