package security

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/scenarios"
)

// look runs one check of files, and returns its result.
func look(t *testing.T, check string, s scenarios.Scan) recording.ScanResult {
	t.Helper()
	s.Only = []string{check}
	var ended recording.ScanResult
	err := Run(t.Context(), Options{Scan: s, Clock: recording.NewClock(), Tell: func(string) {}, Record: func(r recording.ScanResult) {
		if r.Check == check {
			ended = r
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return ended
}

// write creates files in a folder of the test.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// has reports whether a result has a finding of a kind.
func has(check string, r recording.ScanResult, kind string) bool {
	return slices.ContainsFunc(r.Findings, func(f recording.ScanFinding) bool { return f.Fingerprint == Fingerprint(check, kind, f.Where) })
}

// flawedFile changes one thing in a file without flaws, and names the kind of finding
// expected.
type flawedFile struct{ name, from, to, kind string }

// testFlawedFiles runs a check on a text without flaws, and on the text with each flaw.
func testFlawedFiles(t *testing.T, check, file, sound string, scan func(dir string) scenarios.Scan, flawed []flawedFile) {
	t.Helper()
	if r := look(t, check, scan(write(t, map[string]string{file: sound}))); r.Outcome != recording.ScanSafe {
		t.Errorf("the sound one ended as %s: %s %+v", r.Outcome, r.Why, r.Findings)
	}
	for _, tt := range flawed {
		if !strings.Contains(sound, tt.from) {
			t.Fatalf("%s: the sound text does not hold %q", tt.name, tt.from)
		}
		r := look(t, check, scan(write(t, map[string]string{file: strings.Replace(sound, tt.from, tt.to, 1)})))
		switch {
		case tt.kind == "" && r.Outcome != recording.ScanUnproven:
			t.Errorf("%s: it ended as %s, want unproven: %s", tt.name, r.Outcome, r.Why)
		case tt.kind != "" && (r.Outcome != recording.ScanFlaw || !has(check, r, tt.kind)):
			t.Errorf("%s: it ended as %s without the kind %s: %s %+v", tt.name, r.Outcome, tt.kind, r.Why, r.Findings)
		case tt.kind != "" && len(r.Findings) != 1:
			t.Errorf("%s: found %d flaws, want the one: %+v", tt.name, len(r.Findings), r.Findings)
		}
		for _, f := range r.Findings {
			if f.Score > r.Worst || len(f.Evidence) == 0 || f.Fix.IsZero() {
				t.Errorf("%s: the finding is not whole, or worse than %.1f: %+v", tt.name, r.Worst, f)
			}
		}
	}
}

const soundManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: server, namespace: ai}
spec:
  template:
    metadata: {labels: {app: server}}
    spec:
      automountServiceAccountToken: false
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: server
          image: example.com/server:1.2.3
          env: [{name: API_KEY_FILE, value: /run/key}, {name: TOKEN, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: LEVEL, value: info}]
          resources: {limits: {cpu: "2", memory: 1Gi}}
          readinessProbe: {httpGet: {path: /ready, port: 8080}}
          livenessProbe: {httpGet: {path: /health, port: 8080}}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: ai}
spec: {podSelector: {}, policyTypes: [Ingress]}
`

func TestFlawsOfManifests(t *testing.T) {
	testFlawedFiles(t, "manifests", "deployment.yaml", soundManifest, func(dir string) scenarios.Scan { return scenarios.Scan{Manifests: dir} }, []flawedFile{
		{"runs as root", "runAsNonRoot: true, ", "", "restricted"},
		{"privileged", "allowPrivilegeEscalation: false, ", "privileged: true, ", "restricted"},
		{"of the host's network", "automountServiceAccountToken: false", "automountServiceAccountToken: false\n      hostNetwork: true", "restricted"},
		{"with all capabilities", "capabilities: {drop: [ALL]}", "readOnlyRootFilesystem: true", "restricted"},
		{"without limits", "          resources: {limits: {cpu: \"2\", memory: 1Gi}}\n", "", "limits"},
		{"without a limit of memory", ", memory: 1Gi", "", "limits"},
		{"the latest image", ":1.2.3", ":latest", "image"},
		{"an image without a version, of a registry with a port", "example.com/server:1.2.3", "example.com:5000/server", "image"},
		{"a secret in clear", "{name: LEVEL, value: info}", "{name: DB_PASSWORD, value: hunter2!}", "secret DB_PASSWORD"},
		{"no readiness probe", "          readinessProbe: {httpGet: {path: /ready, port: 8080}}\n", "", "probes"},
		{"a token that nothing needs", "      automountServiceAccountToken: false\n", "", "token"},
		{"no NetworkPolicy", "kind: NetworkPolicy", "kind: ConfigMap", "network"},
		{"a NetworkPolicy elsewhere", "{name: closed, namespace: ai}", "{name: closed, namespace: other}", "network"},
		{"no workload", "kind: Deployment", "kind: Service", ""},
		{"no YAML", "spec:\n  template:", "spec: [\n  template:", ""},
	})
	list := `{"kind":"List","items":[{"kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}},{"kind":"CronJob","metadata":{"name":"j"},"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"x"}]}}}}}}]}`
	r := look(t, "manifests", scenarios.Scan{Manifests: write(t, map[string]string{"list.json": list})})
	for _, where := range []string{"list.json Pod/p c", "list.json CronJob/j c"} {
		if !slices.ContainsFunc(r.Findings, func(f recording.ScanFinding) bool { return f.Where == where }) {
			t.Errorf("in a list nothing is found at %s: %+v", where, r.Findings)
		}
	}
}

const soundNginx = `events {}
http {
    server_tokens off;
    limit_req_zone $binary_remote_addr zone=addresses:10m rate=10r/s;
    limit_conn_zone $binary_remote_addr zone=connections:10m;
    client_max_body_size 8m;
    client_header_timeout 10s;
    server {
        listen 443 ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_ciphers "ECDHE-ECDSA-AES128-GCM-SHA256:!aNULL";
        add_header Strict-Transport-Security "max-age=31536000" always; # a comment; with { signs
        location / { limit_req zone=addresses burst=20; limit_conn connections 20; proxy_pass http://gateway; }
    }
    server { listen 80; return 301 https://$host$request_uri; }
}
`

func TestFlawsOfNginx(t *testing.T) {
	testFlawedFiles(t, "nginx", "nginx.conf", soundNginx, func(dir string) scenarios.Scan { return scenarios.Scan{Nginx: dir} }, []flawedFile{
		{"in clear", "listen 80; return 301 https://$host$request_uri;", "listen 80;", "clear"},
		{"old TLS", "TLSv1.2 TLSv1.3", "TLSv1.1 TLSv1.2", "protocols"},
		{"broken suites", "ECDHE-ECDSA-AES128-GCM-SHA256:!aNULL", "HIGH:RC4-SHA", "ciphers"},
		{"no HSTS", `add_header Strict-Transport-Security "max-age=31536000" always;`, "", "hsts"},
		{"no limit of requests", "limit_req zone=addresses burst=20; ", "", "limit_req"},
		{"no limit of connections", "limit_conn connections 20; ", "", "limit_conn"},
		{"the body may be of any size", "ssl_protocols", "client_max_body_size 0; ssl_protocols", "body"},
		{"a slow client may take minutes", "ssl_protocols", "client_body_timeout 10m; ssl_protocols", "client_body_timeout"},
		{"folders are listed", "ssl_protocols", "autoindex on; ssl_protocols", "autoindex"},
		{"a block without an end", "events {}", "events {", ""},
		{"a quote without an end", `"max-age`, `'max-age`, ""},
		{"no server", soundNginx, "events {}", ""},
	})
	r := look(t, "nginx", scenarios.Scan{Nginx: write(t, map[string]string{"nginx.conf": strings.Replace(soundNginx, "server_tokens off;", "server_tokens on;", 1)})})
	if r.Outcome != recording.ScanFlaw || !has("nginx", r, "tokens") {
		t.Errorf("the version is revealed: it ended as %s %+v", r.Outcome, r.Findings)
	}
	for _, odd := range []string{"server { listen; server_tokens; autoindex; client_max_body_size; }", "http { server { listen; ssl_ciphers; ssl_protocols; add_header; } }"} {
		look(t, "nginx", scenarios.Scan{Nginx: write(t, map[string]string{"odd.conf": odd})}) // it must not panic
	}
	if r := look(t, "nginx", scenarios.Scan{Nginx: "../deploy/nginx/nginx.conf"}); r.Outcome != recording.ScanSafe {
		t.Errorf("the bundle's own ended as %s: %s %+v", r.Outcome, r.Why, r.Findings)
	}
}

func TestFlawsOfGatewayConfiguration(t *testing.T) {
	const sound = "network: {rate: 10, burst: 20}\nkey: {rate: 100, burst: 100}\ntenant: {concurrency: 256}\nnetworks: [{cidr: 10.0.0.0/8, rate: 100, burst: 100}]\nproxies: [127.0.0.1/32]\naudit: {unwritable: refuse}\n"
	testFlawedFiles(t, "gateway-config", "gateway.yaml", sound, func(dir string) scenarios.Scan {
		return scenarios.Scan{Gateway: filepath.Join(dir, "gateway.yaml")}
	}, []flawedFile{
		{"no rate", "{rate: 10,", "{rate: 1000000,", "network.rate"},
		{"no burst", "burst: 20}", "burst: 0}", "network.burst"},
		{"no concurrency", "concurrency: 256", "concurrency: 0", "tenant.concurrency"},
		{"all addresses excepted", "10.0.0.0/8", "0.0.0.0/0", "networks"},
		{"all addresses of IPv6 excepted", "10.0.0.0/8", "'::/0'", "networks"},
		{"everybody is a proxy", "127.0.0.1/32", "0.0.0.0/0", "proxies"},
		{"served while nothing is written down", "unwritable: refuse", "unwritable: serve", "audit"},
		{"no YAML", "network: {", "network: [", ""},
	})
	if r := look(t, "gateway-config", scenarios.Scan{Gateway: "../deploy/gateway.yaml"}); r.Outcome != recording.ScanSafe {
		t.Errorf("the bundle's own ended as %s: %s %+v", r.Outcome, r.Why, r.Findings)
	}
}

func TestFlawsOfPermissions(t *testing.T) {
	for name, tt := range map[string]struct {
		file         string
		mode, folder os.FileMode
		text         string
		kind         string // the finding expected
	}{
		"a closed key":                    {"server.key", 0o600, 0o755, "x", ""},
		"a key that others read":          {"server.key", 0o644, 0o755, "x", "read"},
		"a key that its group reads":      {"server.key", 0o640, 0o755, "x", "read"},
		"a key in a closed folder":        {"server.key", 0o644, 0o700, "x", ""},
		"a private key of another name":   {"server.pem", 0o644, 0o755, "-----BEGIN EC PRIVATE KEY-----\n", "read"},
		"a certificate":                   {"server.pem", 0o644, 0o755, "-----BEGIN CERTIFICATE-----\n", ""},
		"a ledger that others read":       {"ledger.db", 0o604, 0o755, "x", "read"},
		"a ledger's log that others read": {"ledger.db-wal", 0o604, 0o755, "x", "read"},
		"any file that others write":      {"notes.txt", 0o666, 0o755, "x", "written"},
		"a folder that others write":      {"notes.txt", 0o600, 0o777, "x", "written"},
		"an audit log that others read":   {"audit.log", 0o644, 0o755, "x", "read"},
	} {
		dir := filepath.Join(t.TempDir(), "secrets")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, tt.file)
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for of, mode := range map[string]os.FileMode{path: tt.mode, dir: tt.folder} {
			if err := os.Chmod(of, mode); err != nil {
				t.Fatal(err)
			}
		}
		r := look(t, "permissions", scenarios.Scan{Secrets: []string{dir}})
		want := recording.ScanSafe
		if tt.kind != "" {
			want = recording.ScanFlaw
		}
		if r.Outcome != want || tt.kind != "" && !has("permissions", r, tt.kind) {
			t.Errorf("%s: it ended as %s: %s %+v", name, r.Outcome, r.Why, r.Findings)
		}
	}
	for name, where := range map[string]string{"nothing there": filepath.Join(t.TempDir(), "none"), "an empty folder": t.TempDir()} {
		if r := look(t, "permissions", scenarios.Scan{Secrets: []string{where}}); r.Outcome != recording.ScanUnproven {
			t.Errorf("%s: it ended as %s", name, r.Outcome)
		}
	}
}

func TestVulnerabilitiesAreReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", path, "../cmd/reference-server").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	database := func(module, fixed, symbol string) string {
		dir := t.TempDir()
		events := `{"introduced":"0"}`
		if fixed != "" {
			events += `,{"fixed":"` + fixed + `"}`
		}
		for name, text := range map[string]string{
			"index/db.json":        `{"modified":"2026-01-01T00:00:00Z"}`,
			"index/modules.json":   fmt.Sprintf(`[{"path":%q,"vulns":[{"id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z"}]}]`, module),
			"index/vulns.json":     `[{"id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z"}]`,
			"ID/GO-2026-0001.json": fmt.Sprintf(`{"schema_version":"1.3.1","id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z","published":"2026-01-01T00:00:00Z","summary":"of a test","affected":[{"package":{"name":%q,"ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[%s]}],"ecosystem_specific":{"imports":[{"path":%q,"symbols":[%q]}]}}]}`, module, events, module, symbol),
		} {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	const module, symbol = "github.com/spf13/cobra", "Command.ExecuteContext"
	for name, tt := range map[string]struct {
		binary, db string
		want       string
	}{
		"code that is vulnerable":        {path, database(module, "", symbol), recording.ScanFlaw},
		"fixed before":                   {path, database(module, "0.0.1", symbol), recording.ScanSafe},
		"code that is not in it":         {path, database(module, "", "NoSuchFunction"), recording.ScanSafe},
		"a module that is not in it":     {path, database("example.com/other", "", symbol), recording.ScanSafe},
		"no database":                    {path, "", recording.ScanUnproven},
		"a folder that is no database":   {path, t.TempDir(), recording.ScanUnproven},
		"a program that is none of Go's": {"/bin/sh", database(module, "", symbol), recording.ScanUnproven},
		"a program that is not there":    {path + "-none", database(module, "", symbol), recording.ScanUnproven},
	} {
		r := look(t, "known-vulnerabilities", scenarios.Scan{Binaries: []string{tt.binary}, Vulnerabilities: tt.db})
		if r.Outcome != tt.want {
			t.Errorf("%s: it ended as %s, want %s: %s %+v", name, r.Outcome, tt.want, r.Why, r.Findings)
		}
	}

	var bom bytes.Buffer
	if err := SBOM(&bom, []string{path}); err != nil {
		t.Fatal(err)
	}
	var written struct {
		BOMFormat   string `json:"bomFormat"`
		SpecVersion string `json:"specVersion"`
		Components  []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(bom.Bytes(), &written); err != nil || written.BOMFormat != "CycloneDX" || written.SpecVersion != "1.6" {
		t.Errorf("%v %+v", err, written)
	}
	if !slices.ContainsFunc(written.Components, func(c struct{ Name, Version, PURL string }) bool {
		return c.Name == module && c.Version != "" && c.PURL == "pkg:golang/"+module+"@"+c.Version
	}) {
		t.Errorf("the bill of materials does not hold %s: %+v", module, written.Components)
	}
	if err := SBOM(&bom, []string{"/bin/sh"}); err == nil {
		t.Error("a program that is none of Go's has a bill of materials")
	}
}
