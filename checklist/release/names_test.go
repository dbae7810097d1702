package release

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// The translated names are exactly those in the checklist that launchgate brings.
func TestNamesOfTheList(t *testing.T) {
	list, err := os.ReadFile("../release.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var names, own []string
	for _, name := range regexp.MustCompile(`\bname: ([A-Z][^,\n]*)`).FindAllSubmatch(list, -1) {
		names = append(names, string(name[1]))
	}
	for _, name := range ours {
		own = append(own, string(name))
	}
	if !slices.Equal(names, own) {
		t.Errorf("the list has %q, and named knows %q", names, own)
	}
	if said := named("Somebody's own item"); !said.IsVerbatim() {
		t.Errorf("what somebody else wrote is said as %+v", said)
	}
}
