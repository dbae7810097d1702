package reports

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"unicode"
	"unicode/utf8"

	"github.com/launchgate/launchgate"

	"github.com/launchgate/launchgate/internal/words"
)

// Language is the language of a report. The zero value is English. Texts of others
// (names, descriptions, errors, model output) are not translated.
type Language string

// The languages there are.
const (
	English Language = "en"
	Chinese Language = "zh"
)

// UnmarshalText reads the name of a language.
func (l *Language) UnmarshalText(b []byte) error {
	switch name := Language(b); name {
	case English, Chinese:
		*l = name
		return nil
	}
	return fmt.Errorf("found the language %q, expected %s (English) or %s (Chinese, 简体中文)", b, English, Chinese)
}

// MarshalText writes the name of a language.
func (l Language) MarshalText() ([]byte, error) {
	if l == "" {
		l = English
	}
	return []byte(l), nil
}

func (l Language) phrases() words.Language {
	if l == Chinese {
		return inChinese
	}
	return phrases
}

// inChinese holds the wordings of every package, those of this one by their ids.
var inChinese = func() words.Language {
	all := words.Language{}
	for _, table := range tables() {
		maps.Copy(all, table)
	}
	return all
}()

// tables are the wordings of each package, by its folder.
func tables() map[string]words.Language {
	all := map[string]words.Language{}
	err := fs.WalkDir(launchgate.Wordings, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := launchgate.Wordings.ReadFile(name)
		if err != nil {
			return err
		}
		var table words.Language
		if err := json.Unmarshal(b, &table); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all[path.Dir(name)] = table
		return nil
	})
	if err != nil { // they are part of the program
		panic(err)
	}
	return all
}

// Word words a sentence.
func (l Language) Word(s words.Sentence) string { return s.In(l.phrases()) }

// say words a phrase of this package by its id. An id that is not in phrases is a bug
// of this package, which a test looks for; the report then shows the id.
func (l Language) say(id words.Phrase, args ...any) string {
	if _, known := phrases[id]; !known {
		return "⟨" + string(id) + "⟩"
	}
	return l.Word(words.Say(id, args...))
}

// sayID is say for templates, which know ids as strings.
func (l Language) sayID(id string, args ...any) string { return l.say(words.Phrase(id), args...) }

// name words the phrase of one of a family, such as the panels.
func (l Language) name(family words.Phrase, id string) string {
	return l.say(family + words.Phrase(id))
}

// sentence turns a clause of the verdict into a sentence.
func (l Language) sentence(clause words.Sentence) string {
	text := l.Word(clause)
	first, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	if l != Chinese {
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	return l.say("text.sentence", text)
}

// join puts texts together, two by two, by a phrase such as text.list.
func (l Language) join(by words.Phrase, texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	all := texts[0]
	for _, t := range texts[1:] {
		all = l.say(by, all, t)
	}
	return all
}
