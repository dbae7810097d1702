package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// manifest has the fields of the objects that this test reads.
type manifest struct {
	metav1.TypeMeta
	Metadata metav1.ObjectMeta
	Data     map[string]string
	Spec     struct{ Template corev1.PodTemplateSpec }
}

// Every container of the rendered manifests that runs reference-server gets arguments
// that the program knows. A replica starts with them and with the container's
// environment, answers its probes as they expect, and serves a request that is sent to
// its Service. Equal containers of several overlays are started once.
func TestManifestsStart(t *testing.T) {
	files, err := filepath.Glob("../../deploy/kubernetes/rendered/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("found the manifests %v (%v), expected base and its overlays", files, err)
	}
	path := build(t)
	started := map[string]string{}
	for _, file := range files {
		objects := manifestsOf(t, file)
		configs := map[string]map[string]string{}
		for _, o := range objects {
			if o.Kind == "ConfigMap" {
				configs[o.Metadata.Name] = o.Data
			}
		}
		replicas := 0
		for _, o := range objects {
			pod := o.Spec.Template
			for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				if !strings.Contains(c.Image, "reference-server") {
					continue
				}
				name := strings.TrimSuffix(filepath.Base(file), ".yaml") + "/" + o.Metadata.Name + "/" + c.Name
				if len(c.Args) == 0 || c.Args[0] != "serve" {
					// The other programs need secrets and a database: their flags are read.
					if out, err := exec.Command(path, append(slices.Clone(c.Args), "--help")...).CombinedOutput(); err != nil {
						t.Errorf("%s: reference-server %v: %v: %s", name, c.Args, err, out)
					}
					continue
				}
				replicas++
				c.Resources = corev1.ResourceRequirements{} // they do not change how it starts
				same := asJSON(t, []any{c, configs, o.Metadata.Namespace})
				if first, done := started[same]; done {
					t.Logf("%s starts as %s does", name, first)
					continue
				}
				started[same] = name
				t.Run(name, func(t *testing.T) { startReplica(t, path, o.Metadata, pod.Annotations, c, configs) })
			}
		}
		if replicas == 0 {
			t.Errorf("%s has no container that serves", file)
		}
	}
}

func manifestsOf(t *testing.T, file string) (objects []manifest) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq("\n"+string(src), "\n---") {
		b, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var o manifest
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatalf("%s: %v: %s", file, err, b)
		}
		objects = append(objects, o)
	}
	return objects
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// startReplica starts a container's program as a kubelet does. It has the container's
// environment and no other. The ports are free ones of this machine, and each volume
// is a new folder.
func startReplica(t *testing.T, path string, of metav1.ObjectMeta, annotations map[string]string, c corev1.Container, configs map[string]map[string]string) {
	ports := map[int32]string{}  // of the container, and where they are here
	named := map[string]string{} // the same by the names of the ports
	for _, p := range c.Ports {
		_, at, err := net.SplitHostPort(freeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		ports[p.ContainerPort], named[p.Name] = at, at
	}
	folders := map[string]string{}
	for _, m := range c.VolumeMounts {
		folders[m.MountPath] = t.TempDir()
		if m.ReadOnly {
			if err := os.Chmod(folders[m.MountPath], 0o500); err != nil {
				t.Fatal(err)
			}
		}
	}
	// here puts this machine's folders and ports in the place of the container's.
	here := func(s string) string {
		s = listens.ReplaceAllStringFunc(s, func(at string) string {
			host, port, _ := net.SplitHostPort(at)
			n, err := strconv.ParseInt(port, 10, 32)
			if err != nil || ports[int32(n)] == "" {
				t.Errorf("%s listens at %s, which is no port of the container: %v", c.Name, at, c.Ports)
				return at
			}
			return net.JoinHostPort(host, ports[int32(n)])
		})
		for _, mount := range slices.Sorted(maps.Keys(folders)) {
			if before, after, found := strings.Cut(s, mount); found && (before == "" || strings.HasSuffix(before, "=")) && (after == "" || after[0] == '/') {
				return before + folders[mount] + after
			}
		}
		return s
	}
	env := map[string]string{"PATH": "/usr/local/bin:/usr/bin:/bin"}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil || configs[from.ConfigMapRef.Name] == nil {
			t.Fatalf("envFrom names %+v, which is none of the ConfigMaps", from)
		}
		maps.Copy(env, configs[from.ConfigMapRef.Name])
	}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			env[e.Name] = expand(e.Value, env)
		case e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace":
			env[e.Name] = of.Namespace
		case e.ValueFrom.ConfigMapKeyRef != nil:
			env[e.Name] = configs[e.ValueFrom.ConfigMapKeyRef.Name][e.ValueFrom.ConfigMapKeyRef.Key]
		default:
			t.Fatalf("this test does not know where %s comes from: %+v", e.Name, e.ValueFrom)
		}
	}
	cmd := exec.Command(path)
	cmd.Env = []string{}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, k+"="+here(env[k]))
	}
	for _, arg := range c.Args {
		cmd.Args = append(cmd.Args, here(expand(arg, env)))
	}
	p := startCommand(t, cmd)

	// The kubelet asks at the address of the pod, and without the name of a Service.
	for _, probe := range []struct {
		name string
		of   *corev1.Probe
	}{{"startup", c.StartupProbe}, {"readiness", c.ReadinessProbe}, {"liveness", c.LivenessProbe}} {
		if probe.of == nil || probe.of.HTTPGet == nil {
			t.Fatalf("the container has no %s probe over HTTP: %+v", probe.name, probe.of)
		}
		at := named[probe.of.HTTPGet.Port.StrVal]
		if at == "" {
			at = ports[probe.of.HTTPGet.Port.IntVal]
		}
		if at == "" {
			t.Fatalf("the %s probe asks at the port %s, which the container does not have: %v", probe.name, probe.of.HTTPGet.Port.String(), c.Ports)
		}
		answers(t, p, probe.name+" probe", "http://127.0.0.1:"+at+probe.of.HTTPGet.Path)
	}
	if at, err := strconv.ParseInt(annotations["prometheus.io/port"], 10, 32); err != nil || ports[int32(at)] == "" {
		t.Errorf("Prometheus is sent to the port %q, which the container does not have: %v", annotations["prometheus.io/port"], c.Ports)
	} else {
		answers(t, p, "metrics", "http://127.0.0.1:"+ports[int32(at)]+annotations["prometheus.io/path"])
	}
	if at := named["grpc"]; at != "" {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+at, 5*time.Second)
		if err != nil {
			t.Errorf("the port grpc: %v", err)
		} else {
			conn.Close()
		}
	}
	for _, host := range []string{"127.0.0.1", of.Name, of.Name + "." + of.Namespace + ".svc", of.Name + "." + of.Namespace + ".svc.cluster.local"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:"+named["http"]+"/v1/chat/completions", bytes.NewBufferString(`{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":2}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = net.JoinHostPort(host, named["http"])
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Model   string
			Choices []json.RawMessage
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || len(answer.Choices) != 1 || answer.Model != env["MODEL_NAME"] {
			t.Errorf("a request to %s is answered with %s: %+v (%v)", host, resp.Status, answer, err)
		}
	}
}

// listens finds addresses to listen at.
var listens = regexp.MustCompile(`0\.0\.0\.0:[0-9]+`)

var variable = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// expand puts in the values of variables as Kubernetes does: $(NAME).
func expand(s string, env map[string]string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		if value, found := env[v[2:len(v)-1]]; found {
			return value
		}
		return v
	})
}

// answers waits for an answer that a probe takes for success. A program that has ended
// will not give one.
func answers(t *testing.T, p *program, what, url string) {
	t.Helper()
	last := "no answer"
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case <-p.ended:
			t.Fatalf("%s: reference-server %v has ended: %v", what, p.cmd.Args[1:], p.cmd.ProcessState)
		default:
		}
		resp, err := http.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		resp.Body.Close()
		if resp.StatusCode >= 200 && resp.StatusCode < 400 {
			return
		}
		last = fmt.Sprint(resp.Status)
	}
	t.Fatalf("%s: %s never answered with success: %s", what, url, last)
}
