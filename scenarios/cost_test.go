package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const priceBook = `date: 2026-11-01
source: the provider's price list
instances:
  - {name: g6.xlarge, on_demand: $0.80, reserved: $0.52, spot: $0.32, interruptions: 5%, autoscaling: 30%, second_provider: 25%}
  - {name: g6e.xlarge, on_demand: $1.86}
`

// A gate takes its price from the price file beside it. The resolved gate then
// has the price itself.
func TestAGateTakesItsPriceFromABook(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("prices.yaml", priceBook)
	gate := strings.Replace(minimal, "seed: 1", "cost: {book: prices.yaml, instance: g6.xlarge}", 1)
	g, err := Load(write("gate.yaml", gate))
	if err != nil {
		t.Fatal(err)
	}
	replicas, price, err := g.Paid()
	want := Price{"g6.xlarge", 0.8, 0.52, 0.32, 0.05, 0.3, 0.25, "2026-11-01", "the provider's price list"}
	if err != nil || replicas != 4 || price != want || g.Cost.Book != "" {
		t.Errorf("%d replicas at %+v, %v", replicas, price, err)
	}
	roundTrip(t, g)

	for _, tt := range []struct{ gate, book, says string }{
		{strings.Replace(gate, "g6.xlarge", "g6.xlrge", 1), priceBook, `has no instance "g6.xlrge"; did you mean g6.xlarge?`},
		{gate, strings.Replace(priceBook, "$0.80", "0.80", 1), `found "0.80", expected dollars an hour`},
		{gate, strings.Replace(priceBook, "2026-11-01", "lately", 1), "expected the date of the prices"},
		{gate, "date: 2026-11-01\nsource: x\ninstances: []\n", "expected at least one"},
		{strings.Replace(gate, "prices.yaml", "none.yaml", 1), priceBook, "none.yaml"},
	} {
		write("prices.yaml", tt.book)
		if _, err := Load(write("gate.yaml", tt.gate)); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%v, want %q", err, tt.says)
		}
	}
}

func FuzzParsePriceBook(f *testing.F) {
	f.Add(priceBook)
	f.Fuzz(func(t *testing.T, src string) {
		book, err := ParsePriceBook("prices.yaml", []byte(src))
		if err != nil {
			return
		}
		for _, p := range book.Instances {
			if p.Name == "" || !(p.OnDemand > 0) || p.Reserved < 0 || p.Spot < 0 {
				t.Fatalf("%+v", p)
			}
		}
	})
}
