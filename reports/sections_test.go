package reports

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every form has every section, or the section's entry says why not. A golden
// file lists which form has which section.
func TestEverySectionIsRenderedOrNamedAsLacking(t *testing.T) {
	var list strings.Builder
	pages, _ := filepath.Glob("page/sections/*.html.tmpl")
	for _, s := range sections {
		page := filepath.Join("page", "sections", s.id+".html.tmpl")
		_, err := os.Stat(page)
		fmt.Fprintf(&list, "%s\n", s.id)
		for _, f := range []struct {
			form form
			told bool
		}{{inHTML, err == nil}, {inTerminal, s.terminal != nil}, {inMarkdown, s.markdown != nil}, {inJUnit, s.junit != nil}} {
			why := s.lacks[f.form]
			switch {
			case f.told == (why != ""):
				t.Errorf("the section %s is told in %s: %v, and the reason why it is not is %q; expected one of the two", s.id, f.form, f.told, why)
			case f.told:
				fmt.Fprintf(&list, "  %-9s told\n", f.form)
			default:
				fmt.Fprintf(&list, "  %-9s not told: %s\n", f.form, why)
			}
		}
		if s.besides != "" && s.lacks[inHTML] != "" {
			t.Errorf("the section %s stands beside %s on a page that does not have it", s.id, s.besides)
		}
	}
	if len(pages) != len(sections) {
		t.Errorf("there are %d templates of sections and %d sections: %v", len(pages), len(sections), pages)
	}
	golden := filepath.Join("testdata", "sections.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(list.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := string(read(t, "testdata", "sections.txt")); want != list.String() {
		t.Errorf("%s is not what it was (-update writes it anew); it is now\n%s", golden, list.String())
	}
}

// A page has its sections in order, each once, and its navigation links to the
// listed ones.
func TestPagesHaveTheirSections(t *testing.T) {
	for _, name := range runs {
		r := judged(t, name).report(t)
		page := assetsOf.ReplaceAllString(write(t, HTML, r), "")
		for _, s := range r.shown() {
			if n := strings.Count(page, fmt.Sprintf(` id="%s"`, s.id)); n != 1 {
				t.Errorf("%s: the page has the section %s %d times", name, s.id, n)
			}
			if led := strings.Contains(page, fmt.Sprintf(`<a href="#%s">`, s.id)); led == s.unlisted && s.id != "objectives" { // the skip link leads to them too
				t.Errorf("%s: the navigation leads to %s: %v", name, s.id, led)
			}
		}
	}
}
