package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A path may contain = and , which otherwise separate it from name and
// quantization.
func TestModelsAreNamed(t *testing.T) {
	dir := t.TempDir()
	comma, equals := filepath.Join(dir, "a,b"), filepath.Join(dir, "a=b,none")
	for _, path := range []string{comma, equals} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for model, want := range map[string][3]string{
		"m=" + comma:           {"m", comma, "fp16"},
		"m=" + comma + ",none": {"m", comma, "none"},
		comma + ",none":        {"", comma, "none"},
		equals:                 {"", equals, "fp16"},
		"m=" + equals:          {"m", equals, "fp16"},
	} {
		o := serveOptions{models: []string{model}, deviceMiB: 1, deviceFile: filepath.Join(dir, "device")}
		o.engine.Quantization = "fp16"
		configs, err := o.configs()
		if err != nil {
			t.Fatal(err)
		}
		if c := configs[0]; c.Name != want[0] || c.Path != want[1] || c.Quantization != want[2] {
			t.Errorf("%s is %q of %s in %s, want %q", model, c.Name, c.Path, c.Quantization, want)
		}
	}
}

// A replica without a secret listens for this host only, unless a flag allows
// everybody.
func TestReplicaWithoutSecretStaysOnThisHost(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		addr, grpc, secret string
		everybody, starts  bool
	}{
		{addr: "127.0.0.1:8080", grpc: "127.0.0.1:8081", starts: true},
		{addr: "localhost:8080", starts: true},
		{addr: "[::1]:8080", starts: true},
		{addr: "127.9.9.9:8080", starts: true},
		{addr: "0.0.0.0:8080"},
		{addr: ":8080"},
		{addr: "[::]:8080"},
		{addr: "10.1.2.3:8080"},
		{addr: "[::ffff:10.1.2.3]:8080"},
		{addr: "127.0.0.1:8080", grpc: "0.0.0.0:8081"},
		{addr: "0.0.0.0:8080", grpc: ":8081", secret: strings.Repeat("s", 32), starts: true},
		{addr: "0.0.0.0:8080", everybody: true, starts: true},
	} {
		t.Setenv("GATEWAY_SECRET", tt.secret)
		_, _, err := serveOptions{addr: tt.addr, grpcAddr: tt.grpc, everybody: tt.everybody}.access(t.Context(), log)
		if (err == nil) != tt.starts {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
