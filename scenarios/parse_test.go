package scenarios

import (
	"reflect"
	"testing"
)

func TestReadyGatesRoundTrip(t *testing.T) {
	for _, gate := range Gates() {
		src, err := Marshal(gate)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse("x.yaml", src)
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		if !reflect.DeepEqual(gate, back) {
			t.Errorf("got %+v\nwant %+v", back, gate)
		}
	}
	if _, err := Parse("starter.yaml", Starter("x")); err != nil {
		t.Fatal(err)
	}
}
