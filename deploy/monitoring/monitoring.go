// Package monitoring has the monitoring of the bundled service: the rules and
// scrape targets of Prometheus, and a Grafana dashboard.
package monitoring

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Files are prometheus.yml, rules.yml and dashboard.json.
//
//go:embed prometheus.yml rules.yml dashboard.json
var Files embed.FS

// MaxShorten is the largest factor by which a drill may shorten windows.
// Shorter windows would have too few scrapes.
const MaxShorten = 60

// The shortest windows: a scrape each second, and a rate over five scrapes.
const (
	leastInterval = time.Second
	leastRange    = 5 * time.Second
)

var (
	intervals = regexp.MustCompile(`(?m)\b(for|interval|scrape_interval|scrape_timeout|evaluation_interval): ([0-9]+[smh])$`)
	ranges    = regexp.MustCompile(`\[([0-9]+[smh])\]`)
)

// Shorten makes every window of a file of rules or of prometheus.yml so many
// times shorter. Drills use such rules: five minutes in production become five
// seconds at 60.
func Shorten(src []byte, times int) []byte {
	if times <= 1 {
		return src
	}
	shorter := func(text string, least time.Duration) string {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic(err) // the expressions match nothing else
		}
		return strconv.FormatInt(max(d/time.Duration(times), least).Milliseconds(), 10) + "ms"
	}
	src = intervals.ReplaceAllFunc(src, func(m []byte) []byte {
		key, window, _ := strings.Cut(string(m), ": ")
		return []byte(key + ": " + shorter(window, leastInterval))
	})
	return ranges.ReplaceAllFunc(src, func(m []byte) []byte {
		return []byte("[" + shorter(string(m[1:len(m)-1]), leastRange) + "]")
	})
}

// Write writes prometheus.yml and rules.yml to a folder, with windows so many
// times shorter.
func Write(dir string, times int) error {
	for _, name := range []string{"prometheus.yml", "rules.yml"} {
		src, err := Files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), Shorten(src, times), 0o644); err != nil {
			return fmt.Errorf("monitoring: %w", err)
		}
	}
	return nil
}
