package tokenizer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"

	"github.com/launchgate/launchgate/internal/flaws"
)

// Message is one turn of a chat.
type Message struct {
	Role    string
	Content string
}

// Template renders chats by a model's own Jinja template.
type Template struct {
	t        *Tokenizer
	tpl      *exec.Template
	bos, eos string
}

// ErrNoTemplate is returned for chats with a model that has no template.
var ErrNoTemplate = errors.New("the model carries no chat template; use /v1/completions")

// ChatTemplate compiles the model's template.
func (t *Tokenizer) ChatTemplate() (*Template, error) {
	if t.Template == "" {
		return nil, ErrNoTemplate
	}
	tpl, err := compile(t.Template)
	if err != nil {
		return nil, fmt.Errorf("the model's chat template cannot be read: %w", err)
	}
	c := &Template{t: t, tpl: tpl}
	if t.BOS >= 0 {
		c.bos = t.Tokens[t.BOS]
	}
	if t.EOS >= 0 {
		c.eos = t.Tokens[t.EOS]
	}
	return c, nil
}

// compile reads a template with the settings of transformers: the newline after
// a block and the blanks before it are removed.
func compile(text string) (tpl *exec.Template, err error) {
	defer recovered(&err)
	const name = "/chat_template"
	loader, err := loaders.NewMemoryLoader(map[string]string{name: text})
	if err != nil {
		return nil, err
	}
	c := config.New()
	c.TrimBlocks, c.LeftStripBlocks = true, true
	return exec.NewTemplate(name, c, loader, gonja.DefaultEnvironment)
}

// recovered turns a panic into an error. A template comes from a model's file,
// and the library panics at some invalid ones.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("it cannot be read: %v", r)
	}
}

// execute renders a template.
func execute(tpl *exec.Template, b *strings.Builder, values map[string]any) (err error) {
	defer recovered(&err)
	return tpl.Execute(b, exec.NewContext(values))
}

// Render writes a chat up to where the assistant's answer begins.
func (c *Template) Render(messages []Message) (string, error) {
	list := make([]any, len(messages))
	for i, m := range messages {
		list[i] = map[string]any{"role": m.Role, "content": m.Content}
	}
	var raised error
	var b strings.Builder
	err := execute(c.tpl, &b, map[string]any{
		"messages": list, "add_generation_prompt": true, "bos_token": c.bos, "eos_token": c.eos,
		"raise_exception": func(text string) string { raised = errors.New(text); return "" },
		"strftime_now":    func(layout string) string { return time.Now().Format(goLayout.Replace(layout)) },
	})
	if raised != nil {
		return "", fmt.Errorf("the model's chat template refuses these messages: %w", raised)
	}
	if err != nil {
		return "", fmt.Errorf("the model's chat template: %w", err)
	}
	return b.String(), nil
}

// MaxMessages is the most messages of a chat. Each is some work for the
// template, even if it is short.
const MaxMessages = 4096

// roles are the valid roles. No other text is allowed, because a template
// writes the role between control tokens.
var roles = []string{"system", "user", "assistant", "developer", "tool"}

// Encode is the prompt of a chat. Only the template writes control tokens. Text
// in a message that looks like one stays text.
func (c *Template) Encode(ctx context.Context, messages []Message, limit int) ([]int32, error) {
	if len(messages) > MaxMessages {
		return nil, fmt.Errorf("there are %d messages; up to %d are possible", len(messages), MaxMessages)
	}
	bytes := 0
	for i, m := range messages {
		if !slices.Contains(roles, m.Role) {
			return nil, fmt.Errorf("messages[%d] has the role %.40q; %s are possible", i, m.Role, strings.Join(roles, ", "))
		}
		if bytes += len(m.Content); c.t.TooLong(bytes, limit) {
			return nil, ErrTooMany
		}
	}
	text, mark, err := c.shielded(ctx, messages)
	if err != nil {
		return nil, err
	}
	if flaws.On("parse-special") {
		text, mark = strings.ReplaceAll(text, mark, ""), ""
	}
	return c.t.encode(ctx, text, true, mark, limit)
}

// shielded is the text of a chat with a mark in everything that only looks like
// a special token. An empty mark means none. Some templates search for such
// tokens in messages, such as the end of an assistant's reasoning, and must
// find them. So if the marks change the rendered text, only control tokens are
// marked.
func (c *Template) shielded(ctx context.Context, messages []Message) (text, mark string, err error) {
	text, err = c.Render(messages)
	if err != nil {
		return "", "", err
	}
	mark = markFor(func(yield func(string) bool) {
		for _, m := range messages {
			if !yield(m.Content) {
				return
			}
		}
		yield(text)
	})
	if mark == "" {
		return "", "", errors.New("the messages use every character that Unicode keeps for private use; leave one of them out")
	}
	for _, whole := range []bool{false, true} {
		if ctx.Err() != nil {
			return "", "", context.Cause(ctx)
		}
		changed, copied := false, slices.Clone(messages)
		for i := range copied {
			copied[i].Content = c.t.specials.shield(messages[i].Content, mark, whole)
			changed = changed || copied[i].Content != messages[i].Content
		}
		if !changed {
			return text, "", nil
		}
		marked, err := c.Render(copied)
		if err == nil && strings.ReplaceAll(marked, mark, "") == text {
			return marked, mark, nil
		}
	}
	return "", "", errors.New("a message has the text of a control token, which this model's chat template reads as one; write it differently")
}

// goLayout turns the strftime verbs that templates use into Go's.
var goLayout = strings.NewReplacer("%d", "02", "%b", "Jan", "%B", "January", "%Y", "2006", "%m", "01", "%H", "15", "%M", "04", "%S", "05")
