package device

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// TestMain lets this program play another process on the device: it makes the
// claim of its arguments and waits to be killed.
func TestMain(m *testing.M) {
	if path := os.Getenv("DEVICE_NEIGHBOUR"); path != "" {
		d, err := Open(path, 1000)
		if err == nil {
			_, err = d.Claim("neighbour", 700)
		}
		fmt.Println("claimed", err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

func TestClaims(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "d.json"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Claim("a", 600)
	if err != nil {
		t.Fatal(err)
	}
	var oom *OutOfMemoryError
	if _, err := d.Claim("b", 500); !errors.As(err, &oom) || oom.Asked != 500 || oom.Free != 400 || oom.Total != 1000 {
		t.Errorf("a claim that does not fit: %v", err)
	}
	if err := a.Resize(1100); !errors.As(err, &oom) || oom.Free != 400 {
		t.Errorf("growing too far: %v", err)
	}
	if err := a.Resize(1000); err != nil {
		t.Error(err)
	}
	if u, _ := d.Usage(); u.Used != 1000 || u.Free() != 0 {
		t.Errorf("%+v", u)
	}
	if err := errors.Join(a.Resize(100), a.Release(), a.Release()); err != nil {
		t.Error(err)
	}
	if u, _ := d.Usage(); u.Used != 0 {
		t.Errorf("%+v", u)
	}
}

// Two processes share one budget. When one is killed, its share is free again.
func TestNeighbourThatIsKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("skipped: claims are shared between processes on Linux alone")
	}
	path := filepath.Join(t.TempDir(), "d.json")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DEVICE_NEIGHBOUR="+path)
	stdin, _ := cmd.StdinPipe()
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	n, _ := out.Read(said)
	if !strings.HasPrefix(string(said[:n]), "claimed <nil>") {
		t.Fatalf("the neighbour said %q", said[:n])
	}
	d, err := Open(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim("mine", 400); err == nil {
		t.Error("400 were given although the neighbour has 700 of 1000")
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := d.Claim("mine", 1000); err != nil {
		t.Errorf("the dead neighbour still holds memory: %v", err)
	}
}

// Claims from many goroutines never add up to more than there is.
func TestClaimsAtOnce(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "d.json"), 100)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	got := 0
	for range 8 {
		all.Go(func() {
			for range 20 {
				if _, err := d.Claim("x", 3); err == nil {
					mu.Lock()
					got++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if u, _ := d.Usage(); got != 33 || u.Used != 99 {
		t.Errorf("%d claims, %+v", got, u)
	}
}

func TestFileThatHoldsNoClaims(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d.json")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, 1); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}
