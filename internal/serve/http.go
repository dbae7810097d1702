package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/launchgate/launchgate/checklist"
	"github.com/launchgate/launchgate/reports"
)

const (
	maxBody = 64 << 10
	maxWait = 2 * time.Hour
	maxFor  = 512
)

// Handler is the API and its page. Everything but /healthz needs the key.
func (s *Server) Handler(key string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	closed := func(pattern string, handle http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !holds(r, key) {
				w.Header().Set("WWW-Authenticate", `Basic realm="launchgate", charset="UTF-8"`)
				refuse(w, http.StatusUnauthorized, "found no key, or a wrong one, expected Authorization: Bearer KEY, or KEY as the password of any user")
				return
			}
			handle(w, r)
		})
	}
	closed("POST /runs", s.postRun)
	closed("GET /runs", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, s.List()) })
	closed("GET /runs/{id}", s.getRun)
	closed("GET /runs/{id}/report", s.getReport)
	closed("GET /{$}", s.page)
	// A webhook of Flagger has no headers, so its key is in its metadata.
	mux.HandleFunc("POST /flagger/promote", func(w http.ResponseWriter, r *http.Request) { s.flagger(w, r, key, checklist.Pass.String()) })
	mux.HandleFunc("POST /flagger/rollback", func(w http.ResponseWriter, r *http.Request) { s.flagger(w, r, key, checklist.Fail.String()) })
	return mux
}

// holds reports whether a request has the key.
func holds(r *http.Request, key string) bool {
	given, is := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, password, basic := r.BasicAuth(); !is && basic {
		given = password
	}
	return same(given, key)
}

func same(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v) // the caller is gone
}

func refuse(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"error": why})
}

// wait is how long a caller wants to wait for the verdict.
func wait(w http.ResponseWriter, r *http.Request) (time.Duration, bool) {
	text := r.URL.Query().Get("wait")
	if text == "" {
		return 0, true
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > maxWait {
		refuse(w, http.StatusBadRequest, "found wait="+text+", expected a duration up to "+maxWait.String()+" such as 30m")
		return 0, false
	}
	return d, true
}

func (s *Server) postRun(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Gate string `json:"gate"`
		For  string `json:"for"`
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&asked); err != nil || len(asked.For) > maxFor {
		refuse(w, http.StatusBadRequest, `expected {"gate": "NAME"}, and optionally "for": what it is asked for, such as a version`)
		return
	}
	patience, ok := wait(w, r)
	if !ok {
		return
	}
	run, ok := s.ask(w, asked.Gate, asked.For)
	if !ok {
		return
	}
	if run, _ = s.Get(r.Context(), run.ID, patience); run.State == Done {
		answer(w, http.StatusOK, run)
		return
	}
	w.Header().Set("Location", "/runs/"+run.ID)
	answer(w, http.StatusAccepted, run)
}

// ask queues a run, or says why it cannot.
func (s *Server) ask(w http.ResponseWriter, gate, reason string) (Run, bool) {
	run, err := s.Ask(gate, reason)
	var unknown unknownGate
	switch {
	case errors.As(err, &unknown):
		refuse(w, http.StatusNotFound, err.Error())
	case errors.Is(err, errFull):
		w.Header().Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, "as many runs are queued as may be; ask again when one has ended")
	case err != nil:
		refuse(w, http.StatusInternalServerError, err.Error())
	}
	return run, err == nil
}

func (s *Server) getRun(w http.ResponseWriter, r *http.Request) {
	patience, ok := wait(w, r)
	if !ok {
		return
	}
	run, known := s.Get(r.Context(), r.PathValue("id"), patience)
	if !known {
		refuse(w, http.StatusNotFound, "there is no such run; GET /runs lists them")
		return
	}
	answer(w, http.StatusOK, run)
}

func (s *Server) getReport(w http.ResponseWriter, r *http.Request) {
	run, known := s.Get(r.Context(), r.PathValue("id"), 0) // a known id is no path out of the folder
	if known {
		if page, err := os.Open(filepath.Join(s.Dir, run.ID, reports.HTMLFile)); err == nil {
			defer page.Close()
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			http.ServeContent(w, r, reports.HTMLFile, run.EndedAt, page)
			return
		}
	}
	refuse(w, http.StatusNotFound, "there is no report of this run, or not yet")
}

// flagger answers a webhook: 200 if the verdict is the one that it is about, and 409
// if it is another one, or none yet. The first call queues the run.
func (s *Server) flagger(w http.ResponseWriter, r *http.Request, key, want string) {
	var asked struct {
		Name, Namespace, Checksum string
		Metadata                  map[string]string
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&asked); err != nil {
		refuse(w, http.StatusBadRequest, "expected the payload of a Flagger webhook: "+err.Error())
		return
	}
	if !holds(r, key) && !same(asked.Metadata["key"], key) {
		refuse(w, http.StatusUnauthorized, "found no key, or a wrong one, expected it in the metadata of the webhook as key")
		return
	}
	reason := strings.Join([]string{asked.Namespace, asked.Name, asked.Checksum}, "/")
	if len(reason) > maxFor || asked.Name == "" {
		refuse(w, http.StatusBadRequest, "expected the name of a canary in the payload")
		return
	}
	run, ok := s.ask(w, asked.Metadata["gate"], reason)
	if !ok {
		return
	}
	status := http.StatusConflict
	if run.Verdict == want {
		status = http.StatusOK
	}
	answer(w, status, run)
}
