// Command raw drives vegeta's library as a plain user of it would: one target, a
// constant rate, and vegeta's own metrics. The benchmark compares the cost of our
// client with it. It is no part of the product.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

func main() {
	url := flag.String("url", "", "of the chat API")
	rate := flag.Int("rate", 1000, "requests a second")
	seconds := flag.Int("for", 5, "seconds")
	flag.Parse()
	target := vegeta.NewStaticTargeter(vegeta.Target{
		Method: http.MethodPost, URL: *url, Header: http.Header{"Content-Type": {"application/json"}},
		Body: []byte(`{"model":"golden","messages":[{"role":"user","content":"Tell me a story about the sea, please, and make it short."}],"max_tokens":64,"temperature":0,"stream":false}`),
	})
	var m vegeta.Metrics
	for r := range vegeta.NewAttacker().Attack(target, vegeta.ConstantPacer{Freq: *rate, Per: time.Second}, time.Duration(*seconds)*time.Second, "raw") {
		m.Add(r)
	}
	m.Close()
	if m.Success < 1 {
		log.Fatalf("%.1f %% of the requests succeeded: %v", m.Success*100, m.Errors)
	}
	fmt.Println(m.Requests, "requests, p99", m.Latencies.P99)
}
