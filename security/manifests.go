package security

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/scenarios"
)

var manifests = Check{
	Name:    "manifests",
	Asks:    "whether Kubernetes manifests meet the Pod Security Standard “restricted”, set resource limits and probes, keep secrets out of the environment, pin the image and restrict the network",
	Control: "the files contain at least one workload",
	Flaw:    "the evaluator of the standard rejects the pod; a container has no CPU or memory limits or no probes; an environment variable with the name of a secret has a literal value; an image has no version or is latest; a service account token is mounted without need; a namespace with workloads has no NetworkPolicy",
	Planted: "manifests written by the test",
	Needs:   "the manifests (manifests)",
	worst:   "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:C/C:H/I:H/A:H",
	asked:   func(s scenarios.Scan) bool { return s.Manifests != "" },
	offline: true,
	run:     runManifests,
}

const (
	maxDeployment = 8 << 20 // most bytes that are read of a file
	maxFiles      = 2000
)

// filesOf are the files at a path; in a folder, those with one of some endings.
func filesOf(path string, endings ...string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case p == path, slices.Contains(endings, filepath.Ext(p)):
			files = append(files, p)
		}
		if len(files) > maxFiles {
			return fmt.Errorf("%s: found more than %d files, expected fewer", path, maxFiles)
		}
		return nil
	})
	return files, err
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDeployment {
		return nil, fmt.Errorf("%s: found %d bytes, expected at most %d", path, info.Size(), maxDeployment)
	}
	return os.ReadFile(path)
}

// manifest is the part of an object that is read, of any kind.
type manifest struct {
	Kind     string            `json:"kind"`
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     struct {
		Template    *podTemplate `json:"template"`
		JobTemplate *struct {
			Spec struct {
				Template *podTemplate `json:"template"`
			} `json:"spec"`
		} `json:"jobTemplate"`
	} `json:"spec"`
	Items []json.RawMessage `json:"items"`
}

type podTemplate struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
	Spec     corev1.PodSpec    `json:"spec"`
}

// pod is a workload and its pod template.
type pod struct {
	file, kind, name, namespace string
	podTemplate
}

// where names the workload without the path of its file.
func (p pod) where() string { return filepath.Base(p.file) + " " + p.kind + "/" + p.name }

func runManifests(_ context.Context, t *trial) end {
	files, err := filesOf(t.Scan.Manifests, ".yaml", ".yml", ".json")
	if err != nil {
		return unproven("the manifests cannot be read: %s", err)
	}
	var pods []pod
	policies := map[string]bool{}
	for _, file := range files {
		src, err := readBounded(file)
		if err != nil {
			return unproven("the manifests cannot be read: %s", err)
		}
		for doc := range strings.SplitSeq("\n"+string(src), "\n---") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			object, err := yaml.YAMLToJSON([]byte(doc))
			if err == nil {
				err = gatherPods(file, object, &pods, policies)
			}
			if err != nil {
				return unproven("%s is not a Kubernetes manifest: %s", filepath.Base(file), err)
			}
		}
	}
	if len(pods) == 0 {
		return unproven("the manifests contain no workload")
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return unproven("the Pod Security Standard cannot be evaluated: %s", err)
	}
	bare := map[string]bool{}
	for _, p := range pods {
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &p.Metadata, &p.Spec))
		if !result.Allowed {
			privileged := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}, &p.Metadata, &p.Spec))
			vector := "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:C/C:L/I:L/A:L"
			if !privileged.Allowed {
				vector = t.check.worst
			}
			t.file(p.where(), "restricted", vector, say("a pod does not meet the Pod Security Standard “restricted”"), result.ForbiddenReason()+": "+result.ForbiddenDetail(),
				say("set runAsNonRoot, allowPrivilegeEscalation: false, capabilities.drop: [ALL] and a seccompProfile of RuntimeDefault, and remove access to the host"), "CWE-250")
		}
		t.containers(p)
		if p.Spec.AutomountServiceAccountToken == nil && p.Spec.ServiceAccountName == "" || p.Spec.AutomountServiceAccountToken != nil && *p.Spec.AutomountServiceAccountToken && p.Spec.ServiceAccountName == "" {
			t.file(p.where(), "token", "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N", say("a token for the cluster's API is mounted without need"), "no serviceAccountName, and automountServiceAccountToken is not false",
				say("set automountServiceAccountToken: false"), "CWE-522")
		}
		if !policies[p.namespace] && !bare[p.namespace] {
			bare[p.namespace] = true
			t.file("namespace "+orElse(p.namespace, "default"), "network", "CVSS:3.1/AV:A/AC:H/PR:N/UI:N/S:U/C:L/I:L/A:N", say("no NetworkPolicy restricts who may reach the pods of a namespace"), "workloads, and no NetworkPolicy, in "+orElse(p.namespace, "the default namespace"),
				say("deny all traffic into the namespace, and allow only what is needed: the gateway to the replicas, Prometheus to the metrics"), "CWE-923")
		}
	}
	return t.ended("%s workloads meet “restricted” and have limits, probes and a NetworkPolicy", number(int64(len(pods))))
}

// gatherPods finds the workloads in an object, or in a list of objects.
func gatherPods(file string, object []byte, pods *[]pod, policies map[string]bool) error {
	var m manifest
	if err := json.Unmarshal(object, &m); err != nil {
		return err
	}
	for _, item := range m.Items {
		if err := gatherPods(file, item, pods, policies); err != nil {
			return err
		}
	}
	add := func(p *podTemplate) {
		if p != nil && len(p.Spec.Containers) > 0 {
			*pods = append(*pods, pod{file: file, kind: m.Kind, name: m.Metadata.Name, namespace: m.Metadata.Namespace, podTemplate: *p})
		}
	}
	switch m.Kind {
	case "NetworkPolicy":
		policies[m.Metadata.Namespace] = true
	case "Pod":
		var p podTemplate
		if err := json.Unmarshal(object, &p); err != nil {
			return err
		}
		add(&p)
	case "CronJob":
		if m.Spec.JobTemplate != nil {
			add(m.Spec.JobTemplate.Spec.Template)
		}
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
		add(m.Spec.Template)
	}
	return nil
}

var secretNames = []string{"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "DSN"}

func (t *trial) containers(p pod) {
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		where := p.where() + " " + c.Name
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Limits.Cpu().IsZero() && c.Resources.Requests.Cpu().IsZero() {
			t.file(where, "limits", "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:C/C:N/I:N/A:L", say("a container may use all memory or CPU of its node"), "no limit of memory, or neither limit nor request of cpu",
				say("set resources.limits.memory, and resources.requests of both"), "CWE-770")
		}
		_, version, tagged := strings.Cut(c.Image[strings.LastIndexByte(c.Image, '/')+1:], ":")
		if !strings.Contains(c.Image, "@sha256:") && (!tagged || version == "latest") {
			t.file(where, "image", "CVSS:3.1/AV:N/AC:H/PR:H/UI:N/S:U/C:L/I:L/A:L", say("an image has no fixed version, so the running code can change without a release"), "image: "+c.Image,
				say("pin the image by its digest (@sha256:…) or by a version"), "CWE-1357")
		}
		for _, e := range c.Env {
			name := strings.ToUpper(e.Name)
			secret := slices.ContainsFunc(secretNames, func(s string) bool { return strings.Contains(name, s) }) && !strings.HasSuffix(name, "_FILE") && !strings.HasSuffix(name, "_ENV") && !strings.HasSuffix(name, "_PATH")
			if secret && len(e.Value) > 3 && !strings.Contains(e.Value, "$(") {
				t.file(where, "secret "+e.Name, "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:N/A:N", say("the manifest contains a secret"), e.Name+"=«"+number(int64(len(e.Value)))+" characters»",
					say("keep it in a Secret and mount the Secret as a file"), "CWE-798")
			}
		}
	}
	if p.kind == "Job" || p.kind == "CronJob" {
		return
	}
	for _, c := range p.Spec.Containers {
		if c.ReadinessProbe == nil || c.LivenessProbe == nil {
			t.file(p.where()+" "+c.Name, "probes", "CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:N/I:N/A:L", say("a container has no readiness or no liveness probe"), fmt.Sprintf("readiness: %v, liveness: %v", c.ReadinessProbe != nil, c.LivenessProbe != nil),
				say("probe /ready for readiness and /health for liveness"), "CWE-754")
		}
	}
}

// file adds a finding in a file.
func (t *trial) file(where, kind, vector string, title words.Sentence, came string, fix words.Sentence, cwe string) {
	t.found(flaw{title: title, kind: kind, where: where, vector: vector, tags: []string{"OWASP API8:2023", cwe}, fix: fix,
		evidence: []recording.Exchange{{Sent: where, Came: came}}, verified: say("found in the file")})
}
