package recording

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
)

// someRequests are requests in which each field is set, or not, at random.
func someRequests(random *rand.Rand, n int) []Request {
	rows := make([]Request, n)
	words := []string{"", "load", "probe", "a longer word", "ünïcödé"}
	for i := range rows {
		v := reflect.ValueOf(&rows[i]).Elem()
		for j := range v.NumField() {
			if random.IntN(3) == 0 {
				continue
			}
			switch f := v.Field(j); f.Kind() {
			case reflect.Int64, reflect.Int32:
				f.SetInt(random.Int64N(1<<31) - 1000)
			case reflect.Bool:
				f.SetBool(random.IntN(2) == 0)
			case reflect.String:
				f.SetString(words[random.IntN(len(words))] + strings.Repeat("x", random.IntN(3)))
			case reflect.Slice:
				for range random.IntN(5) {
					rows[i].Chunks = append(rows[i].Chunks, time.Duration(random.Int64N(1e12)))
				}
			default:
				panic(f.Kind())
			}
		}
	}
	return rows
}

// The reader by columns is tested against the library's own reader by rows.
func TestColumnsAreReadAsRowsAre(t *testing.T) {
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 0))
		var file bytes.Buffer
		w := parquet.NewGenericWriter[Request](&file, parquet.Compression(&parquet.Zstd), parquet.PageBufferSize(1<<(8+random.IntN(8))))
		for range 1 + random.IntN(3) {
			if _, err := w.Write(someRequests(random, random.IntN(3000))); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		compareReaders(t, file.Bytes())
	}
}

// A file rewritten by another program may have other encodings, additional columns and
// missing ones.
func TestColumnsWrittenByOthers(t *testing.T) {
	type other struct {
		Class  string  `parquet:"class,dict"`
		Seq    int64   `parquet:"seq,dict"`
		Status *int32  `parquet:"status,optional,dict"`
		Kind   string  `parquet:"kind"`
		Extra  float64 `parquet:"extra"`
		Due    int64   `parquet:"due_ns,delta"`
	}
	var rows []other
	for i := range 5000 {
		o := other{Class: fmt.Sprint("class", i%7), Seq: int64(i % 100), Kind: "load", Extra: 1.5, Due: int64(i) * 1000}
		if i%3 == 0 {
			o.Status = new(int32(200 + i%5))
		}
		rows = append(rows, o)
	}
	var file bytes.Buffer
	w := parquet.NewGenericWriter[other](&file)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	compareReaders(t, file.Bytes())
}

func compareReaders(t *testing.T, file []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), partName(1, 1))
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	reference := parquet.NewGenericReader[Request](bytes.NewReader(file))
	defer reference.Close()
	n := 0
	readPart(path, func(got Request, err error) bool {
		if err != nil {
			t.Fatal(err)
		}
		one := make([]Request, 1)
		if k, err := reference.Read(one); k != 1 {
			t.Fatalf("row %d: the reference has no more: %v", n, err)
		}
		if len(one[0].Chunks) == 0 {
			one[0].Chunks = nil
		}
		if !reflect.DeepEqual(got, one[0]) {
			t.Fatalf("row %d:\ngot  %+v\nwant %+v", n, got, one[0])
		}
		n++
		return true
	})
	if int64(n) != reference.NumRows() {
		t.Errorf("%d rows were read, and there are %d", n, reference.NumRows())
	}
}

// A reader that stops early does not block, and leaves no goroutine behind.
func TestReadingCanStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), partName(1, 1))
	part, err := createPart(path, unfinished)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * groupRows {
		if err := part.write(&Request{Seq: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := part.close(); err != nil {
		t.Fatal(err)
	}
	for _, stopAt := range []int{1, groupRows, 2*groupRows + 1} {
		n := 0
		if readPart(path, func(Request, error) bool { n++; return n < stopAt }) {
			t.Errorf("stopped after %d, reading says to go on", n)
		}
		if n != stopAt {
			t.Errorf("%d rows were handed out, %d asked for", n, stopAt)
		}
	}
}

// FuzzPart reads corrupt files: the result is an error, never a panic.
func FuzzPart(f *testing.F) {
	var file bytes.Buffer
	w := parquet.NewGenericWriter[Request](&file, parquet.Compression(&parquet.Zstd))
	if _, err := w.Write(someRequests(rand.New(rand.NewPCG(1, 1)), 50)); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	whole := file.Bytes()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("PAR1PAR1"))
	for at := 10; at < len(whole); at += len(whole) / 40 {
		broken := bytes.Clone(whole)
		broken[at] ^= 0x55
		f.Add(broken)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), partName(1, 1))
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		failed := false
		readPart(path, func(_ Request, err error) bool {
			if failed {
				t.Error("something came after the error")
			}
			failed = err != nil
			return true
		})
	})
}

// BenchmarkReadPart reads a file by columns and, for comparison, by the library's rows.
func BenchmarkReadPart(b *testing.B) {
	path := filepath.Join(b.TempDir(), partName(1, 1))
	part, err := createPart(path, unfinished)
	if err != nil {
		b.Fatal(err)
	}
	rows := someRequests(rand.New(rand.NewPCG(1, 1)), 4*groupRows)
	for i := range rows {
		if err := part.write(&rows[i]); err != nil {
			b.Fatal(err)
		}
	}
	if err := part.close(); err != nil {
		b.Fatal(err)
	}
	b.Run("columns", func(b *testing.B) {
		for b.Loop() {
			readPart(path, func(Request, error) bool { return true })
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rows)), "ns/request")
	})
	b.Run("rows", func(b *testing.B) {
		batch := make([]Request, 256)
		for b.Loop() {
			file, err := os.Open(path)
			if err != nil {
				b.Fatal(err)
			}
			reader := parquet.NewGenericReader[Request](file)
			for err = nil; err == nil; {
				clear(batch)
				_, err = reader.Read(batch)
			}
			if err != io.EOF {
				b.Fatal(err)
			}
			reader.Close()
			file.Close()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rows)), "ns/request")
	})
}
