package tokenizer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2"
	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/loaders"
)

// Message is one turn of a chat.
type Message struct {
	Role    string
	Content string
}

// Template renders chats by a model's own Jinja template.
type Template struct {
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
	c := &Template{tpl: tpl}
	if t.BOS >= 0 {
		c.bos = t.Tokens[t.BOS]
	}
	if t.EOS >= 0 {
		c.eos = t.Tokens[t.EOS]
	}
	return c, nil
}

// compile reads a template in transformers' setting: the newline after a block
// and the blanks before it go.
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

// recovered makes an error of a panic: a template comes from a model's file, and
// the library panics at some that are none.
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

// goLayout turns the strftime verbs that templates use into Go's.
var goLayout = strings.NewReplacer("%d", "02", "%b", "Jan", "%B", "January", "%Y", "2006", "%m", "01", "%H", "15", "%M", "04", "%S", "05")
