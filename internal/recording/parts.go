package recording

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/parquet-go/parquet-go"

	"github.com/launchgate/launchgate/internal/durable"
	"github.com/launchgate/launchgate/internal/words"
)

const (
	// A row group is in memory while it is written or read, so its size is bounded by
	// rows and by chunks.
	groupRows   = 1 << 14
	groupChunks = 1 << 20
	// mostGroupRows bounds what a damaged file can make the reader allocate.
	mostGroupRows = 1 << 20
	unfinished    = ".unfinished" // suffix of a part without its footer
	merging       = ".merging"    // suffix of an incomplete merged file
)

// parts writes requests as a sequence of complete Parquet files. They are short,
// because a Parquet file cannot be read without its footer.
type parts struct {
	dir  string
	last int       // number of the newest part
	open *partFile // nil between two parts
}

func (p *parts) write(r *Request) error {
	if p.open == nil {
		p.last++
		part, err := createPart(filepath.Join(p.dir, partName(p.last, p.last)), unfinished)
		if err != nil {
			return err
		}
		p.open = part
	}
	return p.open.write(r)
}

// complete writes the footer of the open part and renames it to its name.
func (p *parts) complete() error {
	if p.open == nil {
		return nil
	}
	part := p.open
	p.open = nil
	return part.close()
}

// partName names the file that holds the parts first to last. The name shows that a
// file is merged. A part inside the range of another file is not read, so a crash
// between writing the merged file and removing its parts neither loses nor duplicates a
// request.
func partName(first, last int) string {
	if first == last {
		return fmt.Sprintf("requests-%06d.parquet", first)
	}
	return fmt.Sprintf("requests-%06d-%06d.parquet", first, last)
}

func parsePartName(name string) (first, last int, ok bool) {
	if n, _ := fmt.Sscanf(name, "requests-%06d-%06d.parquet", &first, &last); n == 2 && name == partName(first, last) {
		return first, last, true
	}
	if n, _ := fmt.Sscanf(name, "requests-%06d.parquet", &first); n == 1 && name == partName(first, first) {
		return first, first, true
	}
	return 0, 0, false
}

// wholeParts are the request files of dir to be read, in order.
func wholeParts(dir string) ([]string, error) {
	names, err := requestFiles(dir)
	if err != nil {
		return nil, err
	}
	var whole []string
	for _, name := range names {
		if !coveredPart(name, names) {
			whole = append(whole, name)
		}
	}
	return whole, nil
}

func coveredPart(name string, names []string) bool {
	first, last, ok := parsePartName(name)
	if !ok {
		return false
	}
	for _, other := range names {
		from, to, ok := parsePartName(other)
		if ok && other != name && from <= first && last <= to {
			return true
		}
	}
	return false
}

// partFile is a Parquet file that is being written.
type partFile struct {
	path   string // its name once it is complete
	file   *os.File
	rows   *parquet.GenericWriter[Request]
	count  int
	chunks int
}

func createPart(path, suffix string) (*partFile, error) {
	file, err := os.Create(path + suffix)
	if err != nil {
		return nil, err
	}
	rows := parquet.NewGenericWriter[Request](file,
		parquet.Compression(&parquet.Zstd),
		parquet.CreatedBy("launchgate", fmt.Sprint(Format), ""),
	)
	return &partFile{path: path, file: file, rows: rows}, nil
}

func (p *partFile) write(r *Request) error {
	if _, err := p.rows.Write([]Request{*r}); err != nil {
		return err
	}
	p.count++
	p.chunks += len(r.Chunks)
	if p.count < groupRows && p.chunks < groupChunks {
		return nil
	}
	p.count, p.chunks = 0, 0
	return p.rows.Flush()
}

// close completes the part: first its footer, on disk, then its name.
func (p *partFile) close() error {
	err := errors.Join(p.rows.Close(), p.file.Sync(), p.file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(p.file.Name(), p.path); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(p.path))
}

// mergeParts merges the parts in dir into one file, so that a long run does not have a
// thousand small files.
func mergeParts(dir string) error {
	names, err := wholeParts(dir)
	if err != nil || len(names) < 2 {
		return err
	}
	first, _, _ := parsePartName(names[0])
	_, last, _ := parsePartName(names[len(names)-1])
	merged, err := createPart(filepath.Join(dir, partName(first, last)), merging)
	if err != nil {
		return err
	}
	if err := copyParts(merged, dir, names); err != nil {
		return errors.Join(err, merged.file.Close(), os.Remove(merged.file.Name()))
	}
	if err := merged.close(); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return durable.SyncFolder(dir)
}

func copyParts(to *partFile, dir string, names []string) error {
	for request, err := range readParts(dir, names) {
		if err != nil {
			return err
		}
		if err := to.write(&request); err != nil {
			return err
		}
	}
	return nil
}

// readParts yields the requests of the named files one after the other, with a bounded
// part of them in memory. An error is the last item.
func readParts(dir string, names []string) func(yield func(Request, error) bool) {
	return func(yield func(Request, error) bool) {
		for _, name := range names {
			if !readPart(filepath.Join(dir, name), yield) {
				return
			}
		}
	}
}

// readPart yields the requests of one file and reports whether to go on. It decodes the
// next row group while it yields the rows of one.
func readPart(path string, yield func(Request, error) bool) bool {
	file, footer, err := openPart(path)
	if err != nil {
		yield(Request{}, err)
		return false
	}
	defer file.Close()
	type read struct {
		rows []Request
		err  error
	}
	done := make(chan struct{})
	groups := make(chan read)
	free := make(chan []Request, 2)
	free <- nil
	free <- nil
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(groups)
		for _, group := range footer.RowGroups() {
			var rows []Request
			select {
			case rows = <-free:
			case <-done:
				return
			}
			rows, err := readRows(group, rows)
			select {
			case groups <- read{rows, err}:
			case <-done:
				return
			}
		}
	})
	defer reading.Wait()
	defer close(done)
	for g := range groups {
		if g.err != nil {
			yield(Request{}, damaged(path, g.err))
			return false
		}
		for i := range g.rows {
			if !yield(g.rows[i], nil) {
				return false
			}
		}
		free <- g.rows
	}
	return true
}

// readRows reads a group into a buffer, or into a new one if the buffer is too small.
func readRows(group parquet.RowGroup, buffer []Request) (rows []Request, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	n := group.NumRows()
	if n < 0 || n > mostGroupRows {
		return nil, words.Errorf("found a group of %d rows, expected at most %d", n, mostGroupRows)
	}
	if int64(cap(buffer)) < n {
		buffer = make([]Request, n)
	}
	rows = buffer[:n]
	clear(rows) // the chunks belong to the rows that were yielded
	return rows, readGroup(group, rows)
}

// openPart opens a Parquet file. The library panics for some corrupt files; openPart
// returns an error for them.
func openPart(path string) (file *os.File, footer *parquet.File, err error) {
	file, err = os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = errors.Join(damaged(path, err), file.Close())
		}
	}()
	info, err := file.Stat()
	if err != nil {
		return file, nil, err
	}
	footer, err = parquet.OpenFile(file, info.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	return file, footer, err
}

func damaged(path string, err error) error {
	return words.Errorf("%s: %s: %s", ErrDamaged, filepath.Base(path), strings.TrimPrefix(err.Error(), "parquet: "))
}
