package scenarios

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cost says what the service runs on and what that costs.
type Cost struct {
	// Book is a file with prices; its path is relative to the gate.
	Book string `yaml:"book,omitempty" json:"book,omitempty"`
	// Instance is the line of the price book for a replica.
	Instance string `yaml:"instance,omitempty" json:"instance,omitempty"`
	// Price is that line of the price book. A run writes it here, so that the run
	// can be judged without the book.
	Price *Price `yaml:"price,omitempty" json:"price,omitempty"`
	// Replicas is the number of replicas; for a service that launchgate deploys it
	// is known.
	Replicas int `yaml:"replicas,omitempty" json:"replicas,omitempty"`
	// Spare is the number of additional replicas that are paid for, so that one
	// may fail.
	Spare *int `yaml:"spare,omitempty" json:"spare,omitempty"`
}

// PriceBook is a file of prices, with where they are from and when.
type PriceBook struct {
	// Date of the prices, as in 2026-11-01.
	Date string `yaml:"date" json:"date"`
	// Source is where they are from.
	Source    string  `yaml:"source" json:"source"`
	Instances []Price `yaml:"instances" json:"instances"`
}

// Price is what an instance costs an hour, however it is bought.
type Price struct {
	// Name of the instance.
	Name string `yaml:"name" json:"name"`
	// OnDemand is the price without a commitment.
	OnDemand Dollars `yaml:"on_demand" json:"on_demand"`
	// Reserved is the price with a commitment of a year or more.
	Reserved Dollars `yaml:"reserved,omitempty" json:"reserved,omitempty"`
	// Spot is the price of an instance that the provider may reclaim.
	Spot Dollars `yaml:"spot,omitempty" json:"spot,omitempty"`
	// Interruptions is the share of spot instances that are reclaimed per hour.
	Interruptions Share `yaml:"interruptions,omitempty" json:"interruptions,omitempty"`
	// Autoscaling is the share of hours that autoscaling saves.
	Autoscaling Share `yaml:"autoscaling,omitempty" json:"autoscaling,omitempty"`
	// SecondProvider is the share of cost that a second provider saves by taking a
	// part of the load.
	SecondProvider Share `yaml:"second_provider,omitempty" json:"second_provider,omitempty"`
	// Date and Source are the book's.
	Date   string `yaml:"date,omitempty" json:"date,omitempty"`
	Source string `yaml:"source,omitempty" json:"source,omitempty"`
}

// Dollars are US dollars, written as $0.80.
type Dollars float64

// String writes the dollars as UnmarshalText reads them.
func (d Dollars) String() string { return "$" + plain(float64(d)) }

// MarshalText writes the dollars as UnmarshalText reads them.
func (d Dollars) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

const dollarsPattern = `^\$[0-9]+(\.[0-9]+)?$`

// UnmarshalText reads dollars such as $0.80.
func (d *Dollars) UnmarshalText(text []byte) error {
	number, ok := strings.CutPrefix(string(text), "$")
	v, err := parseNumber(number)
	if !ok || err != nil || v > 1e6 {
		return fmt.Errorf("found %s, expected dollars an hour such as $0.80", quoted(string(text)))
	}
	*d = Dollars(v)
	return nil
}

// ParsePriceBook reads a price book. Its error is a Problems.
func ParsePriceBook(name string, src []byte) (PriceBook, error) {
	root, problem := parseYAML(src)
	if problem != nil {
		problem.File = name
		return PriceBook{}, Problems{*problem}
	}
	var book PriceBook
	d := newDecoder(root)
	d.decodeBook(root, &book)
	c := &checker{}
	if _, err := time.Parse(time.DateOnly, book.Date); err != nil {
		c.add("date", "found %s, expected the date of the prices, such as 2026-11-01", quoted(book.Date))
	}
	if strings.TrimSpace(book.Source) == "" {
		c.add("source", "found nothing, expected where the prices are from")
	}
	if len(book.Instances) == 0 {
		c.add("instances", "found none, expected at least one")
	}
	for i, p := range book.Instances {
		c.price(fmt.Sprintf("instances[%d]", i), p)
	}
	for _, p := range c.problems {
		d.addUnlessKnown(p)
	}
	d.problems.inFileOrder(nil)
	for i := range d.problems {
		d.problems[i].File = name
	}
	if err := d.problems.asError(); err != nil {
		return PriceBook{}, err
	}
	return book, nil
}

func (c *checker) price(path string, p Price) {
	if p.Name == "" {
		c.add(path+".name", "found nothing, expected the name of an instance")
	}
	if p.OnDemand <= 0 {
		c.add(path+".on_demand", "found %v, expected dollars an hour above 0", p.OnDemand)
	}
	if p.Interruptions > 0 && p.Spot == 0 {
		c.add(path+".interruptions", "found %v, expected spot beside it, which is what is interrupted", p.Interruptions)
	}
}

// ReadPrice reads the price of an instance from the file of a price book.
func ReadPrice(book, instance string) (Price, error) {
	f, err := os.Open(book)
	if err != nil {
		return Price{}, fmt.Errorf("read the price book: %w", err)
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err != nil {
		return Price{}, fmt.Errorf("read the price book: %w", err)
	}
	b, err := ParsePriceBook(book, src)
	if err != nil {
		return Price{}, err
	}
	i := slices.IndexFunc(b.Instances, func(p Price) bool { return p.Name == instance })
	if i < 0 {
		return Price{}, fmt.Errorf("%s has no instance %s; %s", book, quoted(instance), oneOf(instance, namesOf(b.Instances, func(p Price) string { return p.Name })))
	}
	p := b.Instances[i]
	p.Date, p.Source = b.Date, b.Source
	return p, nil
}

// priced is the cost with the line of its book, which lies at a path.
func (c Cost) priced(book string) (Cost, error) {
	p, err := ReadPrice(book, c.Instance)
	if err != nil {
		return c, err
	}
	c.Price, c.Book = &p, ""
	return c, nil
}

func (c *checker) cost(g Gate) {
	k := g.Cost
	if k == nil {
		return
	}
	switch {
	case k.Book != "" && k.Price != nil:
		c.add("cost", "found book and price, expected one of them")
	case k.Book == "" && k.Price == nil:
		c.add("cost.book", "found nothing, expected the file of a price book")
	case k.Book != "" && k.Instance == "":
		c.add("cost.instance", "found nothing, expected the instance of the book that a replica runs on")
	}
	if k.Price != nil {
		c.price("cost.price", *k.Price)
	}
	if g.Target.Endpoint != nil {
		c.between("cost.replicas", k.Replicas, 1, maxReplicas*100)
	} else if on := g.Target.Kubernetes; on != nil && on.Replicas != 0 && k.Replicas != 0 && k.Replicas != on.Replicas {
		c.add("cost.replicas", "found %d, expected none: target.kubernetes has %d", k.Replicas, on.Replicas)
	} else if on != nil && on.Replicas == 0 {
		c.between("cost.replicas", k.Replicas, 1, maxReplicas*100)
	} else if k.Replicas != 0 && g.Target.Local != nil && k.Replicas != g.Target.Local.Replicas {
		c.add("cost.replicas", "found %d, expected none: launchgate deploys %d", k.Replicas, g.Target.Local.Replicas)
	}
	if k.Spare != nil {
		c.between("cost.spare", *k.Spare, 0, maxReplicas*100)
	}
}

// pricedBeside reads the price book of a gate that lies in a folder.
func (g Gate) pricedBeside(dir string) (Gate, error) {
	if g.Cost == nil || g.Cost.Book == "" {
		return g, nil
	}
	book := g.Cost.Book
	if !filepath.IsAbs(book) {
		book = filepath.Join(dir, book)
	}
	cost, err := g.Cost.priced(book)
	if err != nil {
		return g, err
	}
	g.Cost = &cost
	return g, nil
}

var errNoPrice = errors.New("the gate names no price")

// Paid is how many replicas are paid for, and the price of each.
func (g Gate) Paid() (replicas int, price Price, err error) {
	if g.Cost == nil || g.Cost.Price == nil {
		return 0, Price{}, errNoPrice
	}
	replicas = g.Cost.Replicas
	if g.Target.Local != nil {
		replicas = g.Target.Local.Replicas
	}
	if k := g.Target.Kubernetes; k != nil && k.Replicas != 0 {
		replicas = k.Replicas
	}
	spare := 1
	if g.Cost.Spare != nil {
		spare = *g.Cost.Spare
	}
	return replicas + spare, *g.Cost.Price, nil
}
