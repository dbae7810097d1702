package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// session is the state that the checks of one scan share.
type session struct {
	Options
	target    Target
	address   string // host:port
	host      string // as the client writes it in Host
	secure    bool
	tlsConfig *tls.Config
	agent     string
	id        string
	random    *randoms
	sources   []string // addresses of this machine to send requests from, if the target is on it
	turn      atomic.Int64
	others    *others

	hides  *strings.Replacer
	routes []route // those that answer a request with the key
	model  string
	chat   bool // whether /v1/chat/completions works
	why    error
}

func newSession(o Options) (*session, error) {
	u, err := url.Parse(o.Target.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		if len(o.Target.URL) > 0 {
			return nil, fmt.Errorf("found %q for the target of the scan, expected a URL that begins with http:// or https://", o.Target.URL)
		}
		u = &url.URL{Scheme: "http", Host: "127.0.0.1:0"} // for a scan of files only
	}
	s := &session{Options: o, target: o.Target, secure: u.Scheme == "https", host: u.Host, random: &randoms{r: rand.New(rand.NewPCG(o.Seed, 0x5ca9))}}
	port := u.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[s.secure]
	}
	s.address = net.JoinHostPort(u.Hostname(), port)
	s.id = s.random.letters(12)
	s.agent = "launchgate-scan/" + orElse(strings.Map(tokenRune, o.Version), "dev")
	s.tlsConfig = &tls.Config{ServerName: u.Hostname()}
	if o.Target.CAFile != "" {
		pem, err := os.ReadFile(o.Target.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate authority of the target: %w", err)
		}
		s.tlsConfig.RootCAs = x509.NewCertPool()
		if !s.tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: found no certificate, expected a PEM file", o.Target.CAFile)
		}
	}
	if o.Target.CertFile != "" {
		own, err := tls.LoadX509KeyPair(o.Target.CertFile, o.Target.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate %s and its key %s: %w", o.Target.CertFile, o.Target.KeyFile, err)
		}
		s.tlsConfig.Certificates = []tls.Certificate{own}
	}
	s.model = o.Target.Model
	if s.patience == 0 {
		s.patience = slowPatience
	}
	if s.reply == 0 {
		s.reply = othersTimeout
	}
	s.sources = sourcesFor(u.Hostname())
	s.hides = hiding(o)
	return s, nil
}

func tokenRune(r rune) rune {
	if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".-+_", r) {
		return r
	}
	return -1
}

// sourcesFor are addresses of this machine to send requests from. A service on loopback
// limits each address, so that several make the scan minutes faster.
func sourcesFor(host string) []string {
	a, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !a.Is4() || !a.IsLoopback()) || runtime.GOOS != "linux" {
		return nil
	}
	var from []string
	for i := range 24 {
		from = append(from, fmt.Sprintf("127.66.%d.%d", i/8, 10+i%8))
	}
	return from
}

// next is the address that the next request comes from.
func (s *session) next() string {
	if len(s.sources) == 0 {
		return ""
	}
	return s.sources[int(s.turn.Add(1))%len(s.sources)]
}

// own is an address from which no other part of the scan sends; empty if there is only
// one address.
func (s *session) own() string {
	if len(s.sources) == 0 {
		return ""
	}
	return fmt.Sprintf("127.66.200.%d", 1+s.turn.Add(1)%250)
}

// hiding replaces secrets, also if they are encoded.
func hiding(o Options) *strings.Replacer {
	var pairs []string
	for _, k := range []struct{ name, secret string }{
		{"key of the first tenant", o.Target.Key}, {"key of the other tenant", o.Target.OtherKey},
		{"expired key", o.Target.ExpiredKey}, {"revoked key", o.Target.RevokedKey},
	} {
		if len(k.secret) < 6 {
			continue
		}
		name := "«" + k.name + "»"
		pairs = append(pairs, k.secret, name, base64.StdEncoding.EncodeToString([]byte(k.secret)), name, url.QueryEscape(k.secret), name, hex.EncodeToString([]byte(k.secret)), name)
	}
	for _, secret := range o.Secrets {
		if len(secret) >= 6 {
			pairs = append(pairs, secret, "«secret»")
		}
	}
	return strings.NewReplacer(pairs...)
}

// optionsOnly is a copy of the session with only the data of the target, for another way
// to reach it.
func (s *session) optionsOnly() *session {
	return &session{Options: s.Options, target: s.target, address: s.address, host: s.host, secure: s.secure, tlsConfig: s.tlsConfig,
		agent: s.agent, id: s.id, random: s.random, sources: s.sources, hides: s.hides, routes: s.routes, model: s.model, chat: s.chat}
}

func (s *session) hide(text string) string { return s.hides.Replace(text) }

// randoms are random values from the seed, so that a scan can be repeated.
type randoms struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (r *randoms) letters(n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.r.IntN(26))
	}
	return string(b)
}

func (r *randoms) perm(n int) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Perm(n)
}

func (r *randoms) intN(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}

// route is a route that the service serves to clients with a key.
type route struct {
	method, path, body string
	// means distinguishes a real answer from a page that just has status 200.
	means func(a answer) bool
	api   bool // of OpenAI's API, so it must require a key
}

// completion is the part of an answer that is read.
type completion struct {
	Object  string          `json:"object"`
	ID      string          `json:"id"`
	Data    json.RawMessage `json:"data"`
	Choices []struct {
		Text    string `json:"text"`
		Message struct {
			Content   string `json:"content"`
			Reasoning string `json:"reasoning_content"`
		} `json:"message"`
	} `json:"choices"`
	Output []struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	} `json:"output"`
	Status string `json:"status"`
	Usage  *usage `json:"usage"`
	Tokens []int  `json:"tokens"`
	Count  *int   `json:"count"`
}

type usage struct {
	Prompt     int64 `json:"prompt_tokens"`
	Completion int64 `json:"completion_tokens"`
	Input      int64 `json:"input_tokens"`
	Output     int64 `json:"output_tokens"`
	Details    *struct {
		Cached *int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

func (a answer) parsed() (c completion, ok bool) {
	return c, a.ok() && json.Unmarshal(a.body, &c) == nil
}

// text is all text of the answer.
func (c completion) text() string {
	var b strings.Builder
	for _, choice := range c.Choices {
		b.WriteString(choice.Message.Content + choice.Message.Reasoning + choice.Text)
	}
	for _, o := range c.Output {
		for _, part := range o.Content {
			b.WriteString(part.Text)
		}
	}
	return b.String()
}

func meansCompletion(a answer) bool {
	c, ok := a.parsed()
	return ok && len(c.Choices) > 0 && c.Usage != nil
}

func meansResponse(a answer) bool {
	c, ok := a.parsed()
	return ok && c.Object == "response" && c.ID != ""
}

func meansList(a answer) bool {
	c, ok := a.parsed()
	return ok && len(c.Data) > 2 && c.Data[0] == '['
}

func meansTokens(a answer) bool {
	c, ok := a.parsed()
	return ok && len(c.Tokens) > 0
}

// message is a chat of one message.
func (s *session) message(content string, more string) string {
	return s.messages([]map[string]string{{"role": "user", "content": content}}, more)
}

// messages is the body of a chat; more are further members, such as "n":2.
func (s *session) messages(messages any, more string) string {
	return fmt.Sprintf(`{"model":%s,"messages":%s%s}`, quoted(s.model), inJSON(messages), comma(more))
}

func comma(more string) string {
	if more == "" {
		return ""
	}
	return "," + more
}

func quoted(s string) string { return inJSON(s) }

// inJSON writes a value made of strings as JSON, without escaping < and >.
func inJSON(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings can always be encoded
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// small is the request whose answer shows that the service works.
func (s *session) small() request {
	return request{method: "POST", path: "/v1/chat/completions", body: s.message("Say hi.", `"max_tokens":2,"temperature":0`), key: s.target.Key}
}

// learn finds out which routes the service serves to clients with the key.
func (s *session) learn(ctx context.Context) {
	t := newTrial(s, Check{Name: "control", Cap: Cap{Requests: 100, Bytes: 32 << 20}})
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	models := request{method: "GET", path: "/v1/models", key: s.target.Key}
	a := t.ask(ctx, models)
	if s.model == "" {
		var list struct{ Data []struct{ ID string } }
		if a.ok() && json.Unmarshal(a.body, &list) == nil && len(list.Data) > 0 {
			s.model = list.Data[0].ID
		}
	}
	body := func(member, more string) string {
		return fmt.Sprintf(`{"model":%s,%s%s}`, quoted(s.model), member, comma(more))
	}
	candidates := []route{
		{"GET", "/v1/models", "", meansList, true},
		{"POST", "/v1/chat/completions", s.small().body, meansCompletion, true},
		{"POST", "/v1/completions", body(`"prompt":"Say hi."`, `"max_tokens":2,"temperature":0`), meansCompletion, true},
		{"POST", "/v1/responses", body(`"input":"Say hi."`, `"max_output_tokens":16`), meansResponse, true},
		{"POST", "/v1/embeddings", body(`"input":"hi"`, ""), meansList, true},
		{"POST", "/tokenize", body(`"prompt":"hi"`, ""), meansTokens, true},
	}
	for _, r := range candidates {
		a := t.ask(ctx, request{method: r.method, path: r.path, body: r.body, key: s.target.Key})
		switch {
		case r.means(a):
			s.routes = append(s.routes, r)
			s.chat = s.chat || r.path == "/v1/chat/completions"
		case r.path == "/v1/chat/completions" && a.err != nil:
			s.why = a.err
		case r.path == "/v1/chat/completions":
			s.why = fmt.Errorf("POST %s was answered with %s", r.path, clip(strings.ReplaceAll(s.hide(a.String()), "\n", " "), 200))
		}
	}
	for _, r := range s.described(ctx, t) {
		known := func(k route) bool { return k.method == r.method && k.path == r.path }
		if !slices.ContainsFunc(s.routes, known) {
			s.routes = append(s.routes, r)
		}
	}
}

var errNoRoute = errors.New("no route of the OpenAI API answered")

// down reports whether the service does not serve clients with the key, and why.
func (s *session) down(ctx context.Context) (error, bool) {
	if len(s.routes) == 0 {
		if s.why == nil {
			s.why = errNoRoute
		}
		return s.why, true
	}
	t := newTrial(s, Check{Name: "control", Cap: Cap{Requests: 40, Bytes: 16 << 20}})
	var a answer
	for range 3 {
		if a = s.works(ctx, t); a.err == nil {
			return nil, false
		}
		if !sleep(ctx, time.Second) {
			break
		}
	}
	return a.err, true
}

// works sends a request that is known to work; any other result is an answer with an
// error.
func (s *session) works(ctx context.Context, t *trial) answer {
	r := s.routes[0]
	for _, k := range s.routes {
		if k.path == "/v1/chat/completions" {
			r = k
		}
	}
	a := t.ask(ctx, request{method: r.method, path: r.path, body: r.body, key: s.target.Key})
	if a.err == nil && !r.means(a) {
		a.err = fmt.Errorf("%s %s, which worked before, was answered with %s", r.method, r.path, clip(strings.ReplaceAll(s.hide(a.String()), "\n", " "), 200))
	}
	return a
}

// settleDown waits until the service works again after a disruptive check.
func (s *session) settleDown(ctx context.Context) {
	until := time.Now().Add(40 * time.Second)
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, down := s.down(ctx); !down {
			return
		}
	}
}
