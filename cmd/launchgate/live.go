package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/reports"
)

const (
	liveName = "live"
	// A page is used for freshFor, and at least for restFor times as long as
	// making it took. So making pages takes at most a twentieth of a core.
	freshFor = 2 * time.Second
	restFor  = 20
	// watchedFor is how long after the end of the run an open page can still
	// load the verdict.
	watchedFor = 10 * time.Second
)

// liveCommand serves the page of a run that is under way. It is a process of
// its own with low priority, so that watching does not change the measurements.
// It ends soon after its standard input does.
func liveCommand(in io.Reader, out io.Writer) *cobra.Command {
	var listen string
	var lang reports.Language
	cmd := &cobra.Command{
		Use:    liveName + " --listen HOST:PORT DIR",
		Short:  "Serve the report of a run in progress",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lowerPriority()
			return serveLive(cmd.Context(), listen, args[0], lang, in, out)
		},
	}
	languageFlag(cmd, &lang)
	cmd.Flags().StringVar(&listen, "listen", "", "`HOST:PORT` to serve on")
	return cmd
}

// startLive starts the process that shows the run in dir. stop waits for its
// end; an open page gets the verdict before that.
func startLive(self, listen, dir string, lang reports.Language, errOut io.Writer) (stop func(), err error) {
	cmd := exec.Command(self, liveName, "--listen", listen, "--lang", string(lang), dir)
	apart(cmd) // Ctrl-C is for the run; this one ends with it
	var said bytes.Buffer
	cmd.Stderr = &said
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("--live: %w", err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		_ = cmd.Wait()
		why := strings.TrimPrefix(strings.TrimSpace(said.String()), "launchgate: ")
		return nil, errors.New(cmp.Or(why, fmt.Sprintf("--live %s: no page can be served there", listen)))
	}
	fmt.Fprintln(errOut, lang.Word(words.Say("watch it on %s", strings.TrimSpace(line))))
	return func() {
		input.Close()
		_ = cmd.Wait()
		_, _ = said.WriteTo(errOut)
	}, nil
}

// serveLive serves until in ends, and then until open pages have loaded the
// verdict.
func serveLive(ctx context.Context, listen, dir string, lang reports.Language, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--live %s: %w; expected a free HOST:PORT such as 127.0.0.1:7070", listen, err)
	}
	page := &livePage{dir: dir, lang: lang}
	server := &http.Server{Handler: page, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Fprintf(out, "http://%s/\n", l.Addr())
	ended := make(chan struct{})
	go func() { // ends with the process, when its parent does
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	case <-ended:
		page.lastLook(ctx)
	}
	// A response with the verdict that is under way is completed.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), watchedFor)
	defer cancel()
	return errors.Join(server.Shutdown(finish), ignoreClosed(<-served))
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// livePage is the report of the run so far. A request makes it again if it is
// too old.
type livePage struct {
	dir  string
	lang reports.Language

	mu     sync.Mutex
	page   []byte
	made   time.Time
	took   time.Duration
	final  bool // the run has ended when the page was made
	looked time.Time
	shown  bool // the final page was sent
}

// wait is how long the page is used.
func (p *livePage) wait() time.Duration { return max(freshFor, restFor*p.took) }

func (p *livePage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	p.mu.Lock()
	if !p.final && time.Since(p.made) > p.wait() {
		p.make()
	}
	p.looked, p.shown = time.Now(), p.final
	page, final, wait := p.page, p.final, p.wait()
	p.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	if !final {
		h.Set("Refresh", strconv.Itoa(int(wait.Seconds()+0.5)))
	}
	_, _ = w.Write(page)
}

// make makes the page from the current recording.
func (p *livePage) make() {
	began := time.Now()
	page, final, err := underWay(p.dir, p.lang)
	if err != nil { // the recording does not exist yet, or a file is being replaced
		page = notYet(p.lang, err)
	}
	p.page, p.final, p.made, p.took = page, final, time.Now(), time.Since(began)
}

// notYet is shown until there is a recording to read.
func notYet(lang reports.Language, err error) []byte {
	return fmt.Appendf(nil, `<!doctype html><meta charset="utf-8"><title>launchgate</title><p>%s</p>`,
		html.EscapeString(lang.Word(words.Say("The run has not begun to record: %s", err))))
}

// underWay returns the page of a run and whether the run has ended.
func underWay(dir string, lang reports.Language) (page []byte, ended bool, err error) {
	gate, rec, err := openRun(dir)
	if err != nil {
		return nil, false, err
	}
	// The writer lists the files after it has closed them.
	ended = rec.Environment.Files != nil
	if !ended {
		rec.Warnings = nil // they are about files that are still being written
	}
	v, err := checklist.Judge(gate, rec)
	if err != nil {
		return nil, false, err
	}
	r, err := reports.Build(gate, rec, v)
	if err != nil {
		return nil, false, err
	}
	r.Language = lang
	if !ended {
		r.UnderWay, r.Next, r.Interrupted = true, nil, nil
	}
	var b bytes.Buffer
	err = reports.HTML(&b, r)
	return b.Bytes(), ended, err
}

// lastLook waits until an open page has loaded the verdict.
func (p *livePage) lastLook(ctx context.Context) {
	p.mu.Lock()
	patience := min(watchedFor, 2*p.wait())
	p.made = time.Time{} // the next page is made from the complete run
	p.mu.Unlock()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		done := p.shown || time.Since(p.looked) > patience
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
