package main

import (
	"bufio"
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// Ballast takes the free memory except for the given rest, and frees it when
// its standard input ends.
func TestBallast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "device.json")
	free := func() string {
		var out bytes.Buffer
		if err := (ballastOptions{device: "cpu", deviceMiB: 64, deviceFile: file, ask: true}).run(nil, &out); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	if got := free(); got != "67108864" {
		t.Fatalf("%s bytes are free of 64 MiB", got)
	}
	in, lifeline := io.Pipe()
	said, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- ballastOptions{device: "cpu", deviceMiB: 64, deviceFile: file, leave: 1 << 20}.run(bufio.NewReader(in), out)
	}()
	if _, err := io.WriteString(lifeline, "\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || line != "taken\n" {
		t.Fatalf("%q %v", line, err)
	}
	if got := free(); got != "1048576" {
		t.Errorf("%s bytes are free under ballast that leaves 1 MiB", got)
	}
	lifeline.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := free(); got != "67108864" {
		t.Errorf("%s bytes are free afterwards", got)
	}
}
