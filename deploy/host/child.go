package host

import (
	"bufio"
	"io"
	"os/exec"

	"github.com/launchgate/launchgate/deploy"
	"github.com/launchgate/launchgate/internal/words"
)

// child is a process that causes a fault. It is started before the fault, so
// that its pid can be written to the journal, and it waits for a line on its
// standard input before it acts. It ends when its standard input closes, so it
// cannot outlive this process.
type child struct {
	cmd      *exec.Cmd
	lifeline io.WriteCloser
	says     *bufio.Reader
	pid      int
	start    uint64
	ended    bool
}

func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = deploy.Apart()
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, words.Errorf("start the process of the fault: %s", err)
	}
	c := &child{cmd: cmd, lifeline: lifeline, says: bufio.NewReader(out), pid: cmd.Process.Pid}
	st, err := deploy.Stat(c.pid)
	if err != nil {
		c.end()
		return nil, err
	}
	c.start = st.Start
	return c, nil
}

// begin sends the line that makes it act.
func (c *child) begin() error {
	if _, err := io.WriteString(c.lifeline, "\n"); err != nil {
		return words.Errorf("tell pid %d to begin: %s", c.pid, err)
	}
	return nil
}

// stat is the state of this process, not of a later one with the same pid. It
// returns false if the process is gone.
func (c *child) stat() (deploy.ProcStat, bool) {
	st, err := deploy.Stat(c.pid)
	return st, err == nil && st.Start == c.start && st.State != "Z"
}

func (c *child) undo() []deploy.Undo {
	return []deploy.Undo{undoing(undoKill, object{PID: c.pid, Start: c.start})}
}

// end kills the process and waits for it. It can be called more than once.
func (c *child) end() {
	if c.ended {
		return
	}
	c.ended = true
	c.lifeline.Close()
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}
