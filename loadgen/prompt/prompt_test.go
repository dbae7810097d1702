package prompt

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/launchgate/launchgate/internal/words"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/trace"
	"github.com/launchgate/launchgate/scenarios"
)

func user(s string) client.Message      { return client.Message{Role: "user", Content: s} }
func assistant(s string) client.Message { return client.Message{Role: "assistant", Content: s} }
func system(s string) client.Message    { return client.Message{Role: "system", Content: s} }

func TestDatasetsOfTheField(t *testing.T) {
	for _, tt := range []struct {
		says, src string
		want      []Talk
	}{
		{"OpenAI, a question", `{"messages":[{"role":"user","content":"hi"}]}`, []Talk{{[]client.Message{}, []string{"hi"}, 0}}},
		{"OpenAI, a question with its history", `{"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],"max_tokens":7}`,
			[]Talk{{[]client.Message{system("be kind"), user("a"), assistant("b")}, []string{"c"}, 7}}},
		{"OpenAI, a conversation", `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"},{"role":"assistant","content":"d"}]}`,
			[]Talk{{[]client.Message{system("s")}, []string{"a", "c"}, 0}}},
		{"OpenAI, content in parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"text","text":"here"}]}]}`,
			[]Talk{{[]client.Message{}, []string{"look\nhere"}, 0}}},
		{"ShareGPT, in one list", ` [{"id":"x","conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"human","value":"c"},{"from":"gpt","value":"d"}]},
			{"id":"y","conversations":[{"from":"gpt","value":"only answers"}]}]`, []Talk{{nil, []string{"a", "c"}, 0}}},
		{"Alpaca, an instruction with its input", "\ufeff" + `{"instruction":"Translate:","input":"Good morning","output":"Bonjour"}`, []Talk{{[]client.Message{}, []string{"Translate:\n\nGood morning"}, 0}}},
		{"lines of Windows, and empty ones", "\r\n{\"prompt\":\"p\"}\r\n\r\n{\"prompt\":\"q\"}\r\n", []Talk{{[]client.Message{}, []string{"p"}, 0}, {[]client.Message{}, []string{"q"}, 0}}},
		{"numbers in their forms", `{"prompt":"p","max_tokens":12.0}{"prompt":"p","max_tokens":"1e1"}{"prompt":"p","max_tokens":null}`, []Talk{{[]client.Message{}, []string{"p"}, 12}, {[]client.Message{}, []string{"p"}, 10}, {[]client.Message{}, []string{"p"}, 0}}},
		{"a character of two halves", `{"prompt":"\ud83d\ude00 \ufffd"}`, []Talk{{[]client.Message{}, []string{"\U0001F600 \uFFFD"}, 0}}},
		{"a record as long as a book", `{"prompt":"` + strings.Repeat("a", 1<<21) + `"}`, []Talk{{[]client.Message{}, []string{strings.Repeat("a", 1<<21)}, 0}}},
		{"prompts", "{\"prompt\":\"p\",\"output_tokens\":9}\n\n{\"instruction\":\"q\"}\n", []Talk{{[]client.Message{}, []string{"p"}, 9}, {[]client.Message{}, []string{"q"}, 0}}},
	} {
		got, err := ReadDataset(strings.NewReader(tt.src))
		if err != nil || !reflect.DeepEqual(got.Talks, tt.want) || (got.LeftOut == 1) != strings.Contains(tt.src, "only answers") {
			t.Errorf("%s: %+v, %v; want %+v", tt.says, got, err, tt.want)
		}
	}
}

func TestWhatIsNoDataset(t *testing.T) {
	for _, tt := range []struct{ src, says string }{
		{"", "found nothing"},
		{" \n\n", "found nothing"},
		{"prompt,answer\n", "record 1 is not a JSON object"},
		{`{"prompt":"a"} {"text":"b"}`, "record 2: expected messages, conversations or a prompt"},
		{`{"messages":[{"role":"user","content":5}]}`, "record 1: found a content"},
		{`{"conversations":[{"from":"martian","value":"a"}]}`, `found the speaker "martian"`},
		{`{"prompt":"a"} {"messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"x"}}]}]}`, `record 2: found a part of the type "image_url"`},
		{`{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{}}]}]}`, `record 1: found a part of the type "input_audio"`},
		{"{\"prompt\":\"a\"}\n{\"prompt\":\"caf\xe9\"}", "record 2 is not UTF-8"},
		{`{"messages":[{"role":"assistant","content":"a"}]}`, "record 1 has no question"},
		{"\xff\xfe{\x00\"\x00", "found UTF-16"},
		{"\xfe\xff\x00{", "found UTF-16"},
		{`{"prompt":"a"} {"prompt":"a \ud83d b"}`, "record 2 holds half of a character"},
		{`{"prompt":"a","max_tokens":-1}`, "found -1 for a number of tokens"},
		{`{"prompt":"a","max_tokens":"many"}`, `found "many" for a number of tokens`},
		{`[{"prompt":"a"}] {"prompt":"b"}`, "found more after the end of the list, behind record 1"},
		{`[]`, "found no question"},
		{`[{"prompt":"a"}`, "after record 1: the list has no end"},
	} {
		if got, err := ReadDataset(strings.NewReader(tt.src)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %+v, %v; want %q", tt.src, got, err, tt.says)
		}
	}
}

func FuzzReadDataset(f *testing.F) {
	f.Add(`{"messages":[{"role":"user","content":"hi"}]}`)
	f.Add(`[{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}]`)
	f.Add(`{"prompt":["a"]}`)
	f.Fuzz(func(t *testing.T, src string) {
		read, err := ReadDataset(strings.NewReader(src))
		if err != nil {
			return
		}
		for _, talk := range read.Talks {
			if len(talk.Questions) == 0 || talk.MaxTokens < 0 || strings.TrimSpace(talk.Questions[0]) == "" {
				t.Fatalf("%+v", talk)
			}
			talk.First()
		}
	})
}

// tokenizer is a service that counts a token for every three letters of a word: short
// words are one token each, like the common words of real tokenizers.
func tokenizer(t *testing.T, answer func(tokens int) any) *client.Client {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var q struct {
			Prompt   string           `json:"prompt"`
			Messages []client.Message `json:"messages"`
		}
		_ = json.Unmarshal(b, &q)
		text := q.Prompt
		if len(q.Messages) > 0 {
			text = q.Messages[len(q.Messages)-1].Content
		}
		n := 1 // like tokenizers that add a token at the beginning of every text
		for _, word := range strings.Fields(text) {
			n += (len(word) + 4) / 5
		}
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/tokenize" {
			if answer == nil {
				http.NotFound(w, r)
				return
			}
			_ = json.NewEncoder(w).Encode(answer(n))
			return
		}
		fmt.Fprintf(w, `{"choices":[{"message":{"content":"x"},"finish_reason":"length"}],"usage":{"prompt_tokens":%d,"completion_tokens":1}}`, n+11)
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Config{BaseURL: srv.URL, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// count counts tokens as the tokenizer above does.
func count(text string) (n int) {
	for _, word := range strings.Fields(text) {
		n += (len(word) + 4) / 5
	}
	return n
}

// Prompts have the wanted length in the service's own tokens: exactly if it has a
// tokenizer, nearly if it only reports usage.
func TestPromptsAreOfTheLengthAskedFor(t *testing.T) {
	list := func(n int) any { return make([]int, n) }
	for _, tt := range []struct {
		says   string
		answer func(int) any
		exact  bool
		how    string
	}{
		{"vLLM, SGLang and the bundled service tell a count", func(n int) any { return map[string]any{"count": n, "tokens": list(n)} }, true, "own tokenizer"},
		{"llama.cpp lists the tokens", func(n int) any { return map[string]any{"tokens": list(n)} }, true, "own tokenizer"},
		{"TGI answers with a list", list, true, "own tokenizer"},
		{"no tokenizer", nil, false, "with the usage"},
	} {
		g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Workload: scenarios.Workload{
			Synthetic: &scenarios.Synthetic{Tokens: scenarios.Fixed(700), Prefixes: 2, PrefixTokens: 300}}}}}.Resolved()
		m, err := Gather(g)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Learn(context.Background(), g, tokenizer(t, tt.answer)); err != nil {
			t.Fatalf("%s: %v", tt.says, err)
		}
		if !strings.Contains(m.Vocabulary.How.String(), tt.how) {
			t.Errorf("%s: counted %s", tt.says, m.Vocabulary.How)
		}
		maker := m.Maker(g.Scenarios[0].Workload, 1)
		seen, prefixes := map[string]bool{}, map[string]int{}
		for i := range 50 {
			text := maker.Talk(rand.New(rand.NewPCG(1, uint64(i))), uint64(i)).Questions[0]
			n := count(text)
			if tt.exact && n != 700 || math.Abs(float64(n)-700) > 45 {
				t.Fatalf("%s: %d tokens, want 700", tt.says, n)
			}
			seen[text] = true
			prefixes[strings.Join(strings.Fields(text)[:200], " ")]++
		}
		if len(seen) != 50 || len(prefixes) != 2 {
			t.Errorf("%s: %d different prompts, want 50; %d beginnings, want 2", tt.says, len(seen), len(prefixes))
		}
	}
}

// The same seed gives the same prompts in every run, except for the salt at the end.
func TestSalt(t *testing.T) {
	for _, w := range []scenarios.Workload{
		{},
		{Synthetic: &scenarios.Synthetic{Tokens: scenarios.Fixed(40)}},
	} {
		for _, salted := range []bool{true, false} {
			w.Salt = &salted
			g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Workload: w}}}.Resolved()
			ask := func() (texts []string) {
				m, err := Gather(g)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 5 {
					texts = append(texts, m.Maker(g.Scenarios[0].Workload, 1).Talk(rand.New(rand.NewPCG(1, uint64(i))), uint64(i)).Questions[0])
				}
				return texts
			}
			one, two := ask(), ask()
			for i := range one {
				if (one[i] == two[i]) == salted {
					t.Errorf("salted %v: %q and %q", salted, one[i], two[i])
				}
				// The text before the salt is the same.
				if words := strings.Fields(one[i]); salted && !strings.HasPrefix(two[i], strings.Join(words[:max(1, len(words)-saltWords)], " ")) {
					t.Errorf("%q and %q do not begin alike", one[i], two[i])
				}
			}
		}
	}
}

// Requests of a trace with the same blocks begin with the same tokens, and
// only those.
func TestReplayedBlocks(t *testing.T) {
	g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s"}}}.Resolved()
	m, err := Gather(g)
	if err != nil {
		t.Fatal(err)
	}
	m.Vocabulary = Vocabulary{strings.Fields(wordList), 1, words.Verbatim("test")}
	maker := m.Maker(g.Scenarios[0].Workload, 1)
	ask := func(id uint64, input int, blocks ...uint64) []string {
		talk := maker.Replayed(trace.Request{Input: input, Output: 9, Blocks: blocks}, rand.New(rand.NewPCG(1, id)), id)
		if talk.MaxTokens != 9 {
			t.Errorf("asks for %d tokens, want 9", talk.MaxTokens)
		}
		return strings.Fields(talk.Questions[0])
	}
	a, b, c := ask(1, 1300, 7, 8, 9), ask(2, 1100, 7, 8, 10), ask(3, 600, 7)
	if len(a) != 1300 || len(b) != 1100 || len(c) != 600 {
		t.Fatalf("%d, %d and %d words", len(a), len(b), len(c))
	}
	if !reflect.DeepEqual(a[:1024], b[:1024]) || !reflect.DeepEqual(a[:512], c[:512]) {
		t.Error("the same blocks are not the same words")
	}
	if reflect.DeepEqual(a[1024:1100], b[1024:1100]) || reflect.DeepEqual(a[512:600], c[512:600]) {
		t.Error("other blocks are the same words")
	}
}

// A tenant's key is found by its variable, and a missing key is an error.
func TestKeys(t *testing.T) {
	g := scenarios.Gate{Scenarios: []scenarios.Scenario{{Name: "s", Classes: []scenarios.Class{{Name: "gold", Workload: scenarios.Workload{APIKeyEnv: "LAUNCHGATE_TEST_GOLD"}}}}}}.Resolved()
	m, err := Gather(g)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Keys(g, nil); err == nil || !strings.Contains(err.Error(), "LAUNCHGATE_TEST_GOLD") {
		t.Error(err)
	}
	if err := m.Keys(g, map[string]string{"LAUNCHGATE_TEST_GOLD": "secret"}); err != nil {
		t.Fatal(err)
	}
	maker := m.Maker(g.Scenarios[0].Classes[0].Workload, 1)
	rng := rand.New(rand.NewPCG(1, 1))
	talk := maker.Talk(rng, 1)
	if p := maker.Prompt(talk, talk.First(), rng); p.APIKey != "secret" {
		t.Errorf("%+v", p)
	}
}
