package recording

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"time"
	"unsafe"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/launchgate/launchgate/internal/words"
)

// Requests are read by columns: a page of one column is decoded, and its values are
// stored in the rows. The library's own reader works by rows and takes six times as
// long, and reading is most of the time that it takes to judge ten million requests.

// fields are the fields of Request by the names of their columns.
var fields = func() map[string]reflect.StructField {
	found := map[string]reflect.StructField{}
	for f := range reflect.TypeFor[Request]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("parquet"), ",")
		found[name] = f
	}
	return found
}()

// readGroup reads the rows of a group. Missing columns stay zero, and columns that
// Request does not have are ignored.
func readGroup(group parquet.RowGroup, rows []Request) error {
	leaves := group.Schema().Columns()
	for i, chunk := range group.ColumnChunks() {
		field, known := fields[leaves[i][0]]
		if !known {
			continue
		}
		if err := readColumn(chunk, field, rows); err != nil {
			return words.Errorf("column %s: %s", leaves[i][0], err)
		}
	}
	return nil
}

// readColumn fills one field of the rows of a group.
func readColumn(chunk parquet.ColumnChunk, field reflect.StructField, rows []Request) error {
	pages := chunk.Pages()
	defer pages.Close()
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n := int(page.NumRows())
		if n > len(rows) {
			parquet.Release(page)
			return words.Errorf("found %d more rows than the group has", n-len(rows))
		}
		err = fill(field, page, rows[:n])
		parquet.Release(page)
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	if len(rows) > 0 {
		return words.Errorf("found %d fewer rows than the group has", len(rows))
	}
	return nil
}

// fill stores the values of a page in rows; there is one row for each value.
func fill(field reflect.StructField, page parquet.Page, rows []Request) error {
	if field.Type.Kind() == reflect.Slice {
		return fillLists(page, rows)
	}
	present, levels := 0, page.DefinitionLevels()
	// at is the index of a row's value among the values of the page, −1 for null.
	at := func(i int) int {
		if len(levels) > 0 && levels[i] == 0 {
			return -1
		}
		present++
		return present - 1
	}
	data, dictionary := page.Data(), page.Dictionary()
	switch kind := field.Type.Kind(); kind {
	case reflect.Int64:
		if dictionary != nil { // we do not write dictionaries here, but other programs may have rewritten the file
			return set(field.Offset, rows, looked(&data, dictionary, parquet.Value.Int64), at)
		}
		return set(field.Offset, rows, data.Int64(), at)
	case reflect.Int32:
		if dictionary != nil {
			return set(field.Offset, rows, looked(&data, dictionary, parquet.Value.Int32), at)
		}
		return set(field.Offset, rows, data.Int32(), at)
	case reflect.Bool:
		bits := data.Boolean()
		for i := range rows {
			if k := at(i); k >= 0 {
				*place[bool](&rows[i], field.Offset) = bits[k/8]>>(k%8)&1 == 1
			}
		}
		return nil
	case reflect.String:
		if dictionary != nil {
			return set(field.Offset, rows, looked(&data, dictionary, func(v parquet.Value) string { return words.Harmless(string(v.ByteArray())) }), at)
		}
		text, offsets := data.ByteArray()
		for i := range rows {
			if k := at(i); k >= 0 {
				*place[string](&rows[i], field.Offset) = words.Harmless(string(text[offsets[k]:offsets[k+1]]))
			}
		}
		return nil
	default:
		return words.Errorf("a field of kind %s cannot be read", kind)
	}
}

// place is the address of a field in a row.
func place[T any](r *Request, offset uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(r), offset))
}

func set[T any](offset uintptr, rows []Request, values []T, at func(int) int) error {
	for i := range rows {
		if k := at(i); k >= 0 {
			*place[T](&rows[i], offset) = values[k]
		}
	}
	return nil
}

// looked are the values of a page of indexes into a dictionary.
func looked[T any](page *encoding.Values, dictionary parquet.Dictionary, value func(parquet.Value) T) []T {
	words := make([]T, dictionary.Len())
	for i := range words {
		words[i] = value(dictionary.Index(int32(i)))
	}
	indexes := page.Int32()
	values := make([]T, len(indexes))
	for i, k := range indexes {
		values[i] = words[k]
	}
	return values
}

// fillLists reads the only column of lists: the times of chunks. A value at repetition
// level 0 begins a row. A row with an empty list has one null value.
func fillLists(page parquet.Page, rows []Request) error {
	data, defined, repeated := page.Data(), page.DefinitionLevels(), page.RepetitionLevels()
	values := data.Int64()
	row := -1
	for i := 0; i < len(repeated); {
		end := i + 1
		for end < len(repeated) && repeated[end] != 0 {
			end++
		}
		if row++; repeated[i] != 0 || row >= len(rows) {
			return words.Errorf("found a list that spans pages")
		}
		n := 0
		for _, level := range defined[i:end] {
			if level == 1 {
				n++
			}
		}
		if n > 0 {
			chunks := make([]time.Duration, n)
			for j, v := range values[:n] {
				chunks[j] = time.Duration(v)
			}
			rows[row].Chunks, values = chunks, values[n:]
		}
		i = end
	}
	return nil
}
