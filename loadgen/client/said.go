package client

import (
	"bytes"
	"encoding/json"
	"html"
	"regexp"
	"strings"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/internal/words"
)

// Texts of a service are shown in reports, terminals and logs. They are shortened and
// made harmless here, where they are received.
const (
	maxSaid = 300 // bytes of an error text
	maxName = 64  // bytes of a finish reason, or of a replica's name
)

// clip shortens an error text to a line that fits into a report.
func clip(s string) string { return clipTo(s, maxSaid) }

// clipTo makes a text of a service a harmless line of at most so many bytes.
func clipTo(s string, longest int) string {
	cut := len(s) > 4*longest
	if cut {
		s = s[:4*longest] // blanks make it shorter and escapes longer
	}
	s = words.Harmless(strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " "))
	if len(s) > longest {
		s, cut = strings.ToValidUTF8(s[:longest], ""), true
	}
	if cut {
		return s + " …"
	}
	return s
}

func excerpt(b []byte) string { return clipTo(string(b), 120) }

// messageKeys are the keys under which services put the sentence of an error, the most
// reliable first.
var messageKeys = []string{"error", "errors", "message", "detail", "details", "error_message", "error_msg", "errorMessage", "msg", "description", "error_description", "reason", "title"}

// errorText finds the sentence in an error sent as JSON, or as a page.
func errorText(data []byte) string {
	var value any
	if json.Unmarshal(data, &value) == nil {
		if said := sentence(value, 0); said != "" {
			return clip(said)
		}
		return clip(string(data))
	}
	if isHTML(data) {
		return clip(textOfPage(string(data)))
	}
	return clip(string(data))
}

// sentence is the sentence of an error in JSON: {"error": {"message": …}}, {"error":
// …}, {"detail": [{"msg": …}]}, a list of them, or a similar form.
func sentence(value any, depth int) string {
	const deepest = 4
	switch v := value.(type) {
	case string:
		return strings.TrimSpace(v)
	case []any:
		for _, e := range v {
			if said := sentence(e, depth+1); said != "" && depth < deepest {
				return said
			}
		}
	case map[string]any:
		for _, key := range messageKeys {
			if inner, has := v[key]; has && depth < deepest {
				if said := sentence(inner, depth+1); said != "" {
					return said
				}
			}
		}
	}
	return ""
}

// isError reports whether the stray lines of a stream are an error in JSON.
func isError(stray []byte) bool {
	var top map[string]json.RawMessage
	return json.Unmarshal(stray, &top) == nil && (set(top["error"]) || set(top["detail"]) || string(top["object"]) == `"error"`)
}

func isHTML(b []byte) bool {
	b = bytes.ToLower(bytes.TrimSpace(b))
	return bytes.HasPrefix(b, []byte("<!doctype html")) || bytes.HasPrefix(b, []byte("<html"))
}

var (
	unread = regexp.MustCompile(`(?is)<(script|style|head)\b.*?</(script|style|head)>|<!--.*?-->`)
	tag    = regexp.MustCompile(`<[^>]*>`)
	title  = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
)

// textOfPage is the visible text of a page, or its title if there is no other.
func textOfPage(page string) string {
	text := strings.TrimSpace(html.UnescapeString(tag.ReplaceAllString(unread.ReplaceAllString(page, " "), " ")))
	if found := title.FindStringSubmatch(page); found != nil {
		if name := strings.TrimSpace(html.UnescapeString(found[1])); name != "" && !strings.HasPrefix(text, name) {
			text = strings.TrimSpace(name + " " + text)
		}
	}
	if text == "" {
		return page
	}
	return text
}

// textOfParts is the text in a list of content parts, without the model's reasoning.
func textOfParts(list []byte) string {
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(list, &parts) != nil {
		return ""
	}
	var all strings.Builder
	for _, p := range parts {
		if !thinks([]byte(p.Type)) {
			all.WriteString(p.Text)
		}
	}
	return all.String()
}

// thinks reports whether parts of that type are the model's reasoning and no part of
// its answer: thinking (Mistral, Anthropic), reasoning, reasoning_text, summary_text
// (OpenAI) and similar ones.
func thinks(kind []byte) bool {
	return bytes.Contains(kind, []byte("think")) || bytes.Contains(kind, []byte("reason")) || bytes.Contains(kind, []byte("summary"))
}

// fail records why a request did not succeed. Texts of others are cut to a line. A
// sentence that is still too long is kept as plain text.
func fail(row *recording.Request, class string, why words.Phrase, args ...any) {
	for i, a := range args {
		if text, ok := a.(string); ok {
			args[i] = clip(text)
		}
		if err, ok := a.(error); ok {
			if args[i] = words.Of(err); words.Of(err).IsVerbatim() {
				args[i] = clip(err.Error())
			}
		}
	}
	said := words.Say(why, args...)
	if text := said.String(); text != clip(text) {
		said = words.Verbatim(clip(text))
	}
	row.Fail(class, said)
}
