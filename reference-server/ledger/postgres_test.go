package ledger

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// cluster runs PostgreSQL's own programs, as a user other than root, as they
// demand.
type cluster struct {
	t    *testing.T
	bin  string
	dir  string
	cred *syscall.Credential // nil: as this process
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed: apt-get install postgresql")
	}
	dir, err := os.MkdirTemp("", "launchgate-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cluster{t: t, bin: filepath.Dir(slices.Max(found)), dir: dir}
	if os.Geteuid() != 0 {
		return c
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skip("the tests run as root, PostgreSQL refuses to, and there is no user postgres")
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	return cmd
}

func (c *cluster) must(name string, args ...string) {
	c.t.Helper()
	if out, err := c.command(name, args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// start runs a server on loopback until the test ends, or it is killed.
func (c *cluster) start(data string, port int) (kill func()) {
	c.t.Helper()
	cmd := c.command("postgres", "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+c.dir,
		"-c", "wal_level=replica", "-c", "max_wal_senders=4", "-c", "shared_buffers=16MB")
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	kill = func() { _ = cmd.Process.Kill(); <-ended }
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			kill()
		}
	})
	for deadline := time.Now().Add(30 * time.Second); c.command("pg_isready", "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(port)).Run() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatal("PostgreSQL was not ready within 30 s")
		}
	}
	return kill
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// The same contract holds against a real PostgreSQL with a synchronous standby.
// After the primary was killed and the standby promoted, every acknowledged
// record is there.
func TestPostgres(t *testing.T) {
	c := newCluster(t)
	primary, standby := filepath.Join(c.dir, "primary"), filepath.Join(c.dir, "standby")
	c.must("initdb", "-D", primary, "-U", "ledger", "-A", "trust", "--no-sync")
	at, behind := freePort(t), freePort(t)
	kill := c.start(primary, at)
	c.must("pg_basebackup", "-h", "127.0.0.1", "-p", strconv.Itoa(at), "-U", "ledger", "-D", standby, "-R", "--no-sync")
	c.start(standby, behind)
	url := func(port int) string {
		return fmt.Sprintf("postgres://ledger@127.0.0.1:%d/postgres?sslmode=disable", port)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := Open(ctx, url(at))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	contract(t, l)

	for _, statement := range []string{"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"} {
		if _, err := l.db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n == 0; time.Sleep(20 * time.Millisecond) {
		if err := l.row(ctx, `SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	acknowledged := 0
	time.AfterFunc(500*time.Millisecond, kill)
	for l.AddUsage(ctx, Usage{Request: fmt.Sprint("ack-", acknowledged), Tenant: "acme", At: time.Now()}) == nil {
		acknowledged++
	}
	if acknowledged == 0 {
		t.Fatal("nothing was acknowledged, so nothing was proven")
	}
	c.must("pg_ctl", "promote", "-w", "-D", standby)
	after, err := Open(ctx, url(behind))
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	lost := 0
	for i := range acknowledged {
		if _, err := after.UsageOf(ctx, fmt.Sprint("ack-", i)); err != nil {
			lost++
		}
	}
	t.Logf("%d records acknowledged before the primary was killed, %d lost", acknowledged, lost)
	if lost > 0 {
		t.Errorf("%d of %d acknowledged records are lost", lost, acknowledged)
	}
}
