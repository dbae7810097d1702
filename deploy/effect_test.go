package deploy

import (
	"encoding/json"
	"testing"
)

// An Undo is read from a journal as it was written, also by an older version.
func TestUndoIsReadBack(t *testing.T) {
	for text, want := range map[string]Undo{
		`{"do":"uncordon","to":{"node":"machine-7"}}`:      {Do: "uncordon", To: []byte(`{"node":"machine-7"}`)},
		`{"do":"kill","to":{"pid":7},"until_reboot":true}`: {Do: "kill", To: []byte(`{"pid":7}`), UntilReboot: true},
		`{"do":"kill","pid":7,"start":9}`:                  {Do: "kill", To: []byte(`{"do":"kill","pid":7,"start":9}`), UntilReboot: true},
		`{"do":"remove","path":"/tmp/launchgate-fault-1"}`: {Do: "remove", To: []byte(`{"do":"remove","path":"/tmp/launchgate-fault-1"}`)},
	} {
		var got Undo
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.Do != want.Do || string(got.To) != string(want.To) || got.UntilReboot != want.UntilReboot {
			t.Errorf("%s is read as %+v, %v; want %+v", text, got, err, want)
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var again Undo
		if err := json.Unmarshal(b, &again); err != nil || string(again.To) != string(got.To) || again.UntilReboot != got.UntilReboot {
			t.Errorf("%s is read back as %+v, %v", b, again, err)
		}
	}
}
