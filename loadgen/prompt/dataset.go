package prompt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/launchgate/launchgate/loadgen/client"
)

// Talk is a conversation: the messages before it, and the questions to ask one after
// the other.
type Talk struct {
	Before    []client.Message
	Questions []string
	MaxTokens int // limit of each answer, if the dataset has one
}

// Dataset is the content of a dataset file.
type Dataset struct {
	Talks []Talk
	// LeftOut is how many records of ShareGPT were left out because they have no user's
	// message. Other records without a question are errors.
	LeftOut int
}

// LoadDataset reads the prompts of a file.
func LoadDataset(path string) (Dataset, error) {
	f, err := os.Open(path)
	if err != nil {
		return Dataset{}, fmt.Errorf("read the dataset: %w", err)
	}
	defer f.Close()
	d, err := ReadDataset(f)
	if err != nil {
		return Dataset{}, fmt.Errorf("dataset %s: %w", path, err)
	}
	return d, nil
}

// record is a line of a dataset, in any of the known formats.
type record struct {
	Messages []struct { // OpenAI
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	Conversations []struct { // ShareGPT
		From  string `json:"from"`
		Value string `json:"value"`
	} `json:"conversations"`
	Prompt       json.RawMessage `json:"prompt"`
	Instruction  string          `json:"instruction"` // Alpaca
	Input        string          `json:"input"`       // the text that the instruction is about
	MaxTokens    tokens          `json:"max_tokens"`
	OutputTokens tokens          `json:"output_tokens"`
}

// tokens is a number of tokens, in any form in which programs write whole numbers: 12,
// 12.0, 1.2e1, "12"; null is none.
type tokens int

// UnmarshalJSON reads a number of tokens. Its error says what was found.
func (c *tokens) UnmarshalJSON(b []byte) error {
	said := strings.TrimSpace(strings.Trim(string(b), `"`))
	if said == "null" || said == "" {
		return nil
	}
	v, err := strconv.ParseFloat(said, 64)
	if err != nil || v != math.Trunc(v) || v < 0 || v > math.MaxInt32 {
		return fmt.Errorf("found %s for a number of tokens, expected a whole number from 0 on", b)
	}
	*c = tokens(v)
	return nil
}

// ReadDataset reads JSON lines, or one JSON list, of records with messages (OpenAI),
// conversations (ShareGPT) or a prompt. If the last message is a user's, the messages
// before it are the history of that one question. Otherwise the record is a
// conversation, and the user's messages are its questions.
func ReadDataset(r io.Reader) (Dataset, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	d := json.NewDecoder(in)
	list, err := isList(in)
	if err != nil {
		return Dataset{}, err
	}
	if list {
		_, _ = d.Token()
	}
	var read Dataset
	for n := 1; ; n++ {
		if list && !d.More() {
			if _, err := d.Token(); err != nil {
				return Dataset{}, fmt.Errorf("after record %d: the list has no end: %w", n-1, err)
			}
			if _, err := d.Token(); !errors.Is(err, io.EOF) {
				return Dataset{}, fmt.Errorf("found more after the end of the list, behind record %d, expected one list or JSON lines", n-1)
			}
			break
		}
		var line json.RawMessage
		err := d.Decode(&line)
		if errors.Is(err, io.EOF) && !list {
			break
		}
		if err == nil && !utf8.Valid(line) {
			return Dataset{}, fmt.Errorf("record %d is not UTF-8: convert the file, for example with iconv -f latin1 -t utf-8", n)
		}
		var rec record
		if err == nil {
			err = json.Unmarshal(line, &rec)
		}
		if err != nil {
			return Dataset{}, fmt.Errorf("record %d is not a JSON object of a dataset (JSON lines, or one JSON list): %w", n, err)
		}
		if halves(line) {
			return Dataset{}, fmt.Errorf("record %d holds half of a character (a \\u escape of a surrogate without its other half), which no service can be asked with: mend it, or leave the record out of the file", n)
		}
		talk, err := rec.talk()
		if err != nil {
			return Dataset{}, fmt.Errorf("record %d: %w", n, err)
		}
		if len(talk.Questions) == 0 && len(rec.Conversations) > 0 {
			read.LeftOut++
			continue
		}
		if len(talk.Questions) == 0 {
			return Dataset{}, fmt.Errorf("record %d has no question of a user, expected at least one: leave the record out of the file", n)
		}
		read.Talks = append(read.Talks, talk)
	}
	if len(read.Talks) == 0 {
		return Dataset{}, errors.New("found no question of a user, expected at least one")
	}
	return read, nil
}

// halves reports whether a record has escapes of half a character (a lone surrogate),
// which would be sent as another character.
func halves(line []byte) bool {
	if !bytes.Contains(bytes.ToLower(line), []byte(`\ud`)) {
		return false
	}
	var compact bytes.Buffer
	var v any
	if json.Unmarshal(line, &v) != nil {
		return false
	}
	e := json.NewEncoder(&compact)
	if e.Encode(v) != nil {
		return false
	}
	replaced := func(b []byte) int {
		return bytes.Count(b, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(b), []byte(`\ufffd`))
	}
	return replaced(compact.Bytes()) > replaced(line)
}

// isList skips blanks and reports whether a list follows.
func isList(in *bufio.Reader) (bool, error) {
	if head, _ := in.Peek(2); len(head) == 2 && (head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff || head[0] == 0 || head[1] == 0) {
		return false, errors.New("found UTF-16, expected UTF-8: convert the file, for example with iconv -f utf-16 -t utf-8")
	}
	for n := 1; n <= in.Size(); n++ {
		head, err := in.Peek(n)
		if err != nil {
			return false, errors.New("found nothing, expected JSON lines with messages, conversations or a prompt")
		}
		if c := head[n-1]; bytes.IndexByte([]byte(" \t\r\n\xef\xbb\xbf"), c) < 0 { // blanks and the bytes of a byte order mark
			_, _ = in.Discard(n - 1)
			return c == '[', nil
		}
	}
	return false, errors.New("found nothing but blanks")
}

func (r record) talk() (Talk, error) {
	messages, err := r.messages()
	if err != nil {
		return Talk{}, err
	}
	talk := Talk{MaxTokens: int(max(r.MaxTokens, r.OutputTokens))}
	if n := len(messages); n > 0 && messages[n-1].Role == "user" {
		talk.Before, talk.Questions = messages[:n-1], []string{messages[n-1].Content}
		return talk, nil
	}
	for i, m := range messages {
		switch {
		case m.Role == "user":
			talk.Questions = append(talk.Questions, m.Content)
		case i == 0 && m.Role == "system":
			talk.Before = messages[:1]
		}
	}
	return talk, nil
}

// roles maps the names of roles in ShareGPT's files.
var roles = map[string]string{"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant",
	"bard": "assistant", "assistant": "assistant", "system": "system"}

func (r record) messages() ([]client.Message, error) {
	var all []client.Message
	for _, m := range r.Messages {
		content, err := textOf(m.Content)
		if err != nil {
			return nil, err
		}
		all = append(all, client.Message{Role: m.Role, Content: content})
	}
	for _, c := range r.Conversations {
		role, known := roles[c.From]
		if !known {
			return nil, fmt.Errorf("found the speaker %q, expected human, gpt or system", c.From)
		}
		all = append(all, client.Message{Role: role, Content: c.Value})
	}
	if len(all) == 0 {
		prompt, err := textOf(r.Prompt)
		if err != nil {
			return nil, err
		}
		if prompt == "" {
			prompt = r.Instruction
			if strings.TrimSpace(r.Input) != "" {
				prompt += "\n\n" + r.Input
			}
		}
		all = append(all, client.Message{Role: "user", Content: prompt})
	}
	all = slices.DeleteFunc(all, func(m client.Message) bool { return strings.TrimSpace(m.Content) == "" })
	if len(all) == 0 && len(r.Messages)+len(r.Conversations) == 0 {
		return nil, errors.New("expected messages, conversations or a prompt in it")
	}
	return all, nil
}

// textOf is the text of a content: a string, or a list of parts, which all have to be
// texts. A question about an image makes no sense without it.
func textOf(raw json.RawMessage) (string, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", errors.New("found a content that is neither a text nor a list of parts")
	}
	var texts []string
	for _, p := range parts {
		if p.Text == nil {
			return "", fmt.Errorf("found a part of the type %q, and only texts can be asked: leave the record out of the file", p.Type)
		}
		texts = append(texts, *p.Text)
	}
	return strings.Join(texts, "\n"), nil
}
