// Command burst measures a server's throughput: it sends so many requests of
// random token ids at once, waits for all answers, and says how many tokens per
// second came. docs/benchmarks.md has what it measured.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:8080", "the server")
	n := flag.Int("requests", 256, "requests sent at once")
	low := flag.Int("low", 64, "the fewest tokens of a prompt")
	high := flag.Int("high", 256, "the most")
	out := flag.Int("out", 128, "tokens of every answer")
	vocabulary := flag.Int("vocabulary", 128000, "token ids are drawn below this")
	rounds := flag.Int("rounds", 3, "times; each is reported")
	flag.Parse()
	for round := range *rounds {
		if err := burst(*url, round, *n, *low, *high, *out, *vocabulary); err != nil {
			fmt.Fprintln(os.Stderr, "burst:", err)
			os.Exit(1)
		}
	}
}

// burst sends n requests at once and prints what came of them.
func burst(url string, round, n, low, high, out, vocabulary int) error {
	rng := rand.New(rand.NewPCG(uint64(round), 1))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}, Timeout: 5 * time.Minute}
	firsts, failed := make([]time.Duration, n), make([]error, n)
	var all sync.WaitGroup
	began := time.Now()
	for i := range n {
		ids := make([]int, low+rng.IntN(high-low+1))
		for j := range ids {
			ids[j] = rng.IntN(vocabulary)
		}
		all.Go(func() { firsts[i], failed[i] = request(client, url, ids, out) })
	}
	all.Wait()
	took := time.Since(began).Seconds()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	slices.Sort(firsts)
	fmt.Printf("%d requests: %.2f s, %.0f output tokens/s, first token median %s, last %s\n", n, took, float64(n*out)/took, firsts[n/2].Round(time.Millisecond), firsts[n-1].Round(time.Millisecond))
	return nil
}

// request streams one answer, and checks that all of its tokens came.
func request(client *http.Client, url string, ids []int, out int) (first time.Duration, err error) {
	body, err := json.Marshal(map[string]any{"prompt": ids, "max_tokens": out, "temperature": 0, "stream": true, "ignore_eos": true, "stream_options": map[string]any{"include_usage": true}})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	resp, err := client.Post(url+"/v1/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if first == 0 {
			first = time.Since(began)
		}
		var chunk struct {
			Usage *struct {
				Completion int `json:"completion_tokens"`
			}
		}
		if data != "[DONE]" && json.Unmarshal([]byte(data), &chunk) == nil && chunk.Usage != nil && chunk.Usage.Completion != out {
			return first, fmt.Errorf("%d tokens came, %d were asked for", chunk.Usage.Completion, out)
		}
	}
	return first, lines.Err()
}
