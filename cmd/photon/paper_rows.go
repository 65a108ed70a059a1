package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
)

// paperRow is one measurement. Its fields are the columns of the file; what does not apply is 0, which stands there as
// nothing. Rates are of the whole model, or of all texts together; sizes are bytes.
type paperRow struct {
	Preset  string `csv:"preset"`
	Mode    string `csv:"mode"`
	Weights string `csv:"weights"`
	Cache   string `csv:"cache"`
	Threads int    `csv:"threads"`
	Test    string `csv:"test"`
	Depth   int    `csv:"depth"`  // tokens before the first that is generated
	Wanted  int    `csv:"wanted"` // texts: as many as were to be run

	Texts int `csv:"texts"` // and as many as were
	Made  int `csv:"made"`  // tokens generated, of a text
	Runs  int `csv:"runs"`  // of which this is the median

	Seconds          float64 `csv:"seconds"`            // from the first token read to the last generated
	PerSecond        float64 `csv:"tokens_per_second"`  // generated, by that time
	DecodePerSecond  float64 `csv:"decode_per_second"`  // generated, once all prompts are read
	PrefillPerSecond float64 `csv:"prefill_per_second"` // long: of 2,048 tokens behind the text
	First32          float64 `csv:"first32_per_second"` // the first 32 tokens behind the prompt
	Next128          float64 `csv:"next128_per_second"` // and those after
	FirstToken50     float64 `csv:"first_token_ms_p50"`
	FirstToken99     float64 `csv:"first_token_ms_p99"`
	Token50          float64 `csv:"token_ms_p50"`
	Token99          float64 `csv:"token_ms_p99"`
	TextRate50       float64 `csv:"text_per_second_p50"` // tokens/s of each text
	TextRate1        float64 `csv:"text_per_second_p1"`
	Fairness         float64 `csv:"fairness"` // of those: (Σx)²/(n·Σx²)

	// Keys and values of a text in the end; long: behind the prompt; samples: that one more holds.
	StateText   int64   `csv:"state_text"`
	State       int64   `csv:"state"`   // that all texts hold
	KVRead      int64   `csv:"kv_read"` // keys and values that attention read, a token generated
	WeightsRead int64   `csv:"weights_read"`
	ModelBytes  int64   `csv:"model_bytes"` // that the process takes with the model and no text
	PeakBytes   int64   `csv:"peak_bytes"`  // and the most that it took
	TPM         float64 `csv:"tpm"`         // thousand tokens/s for each GiB of a text's state, as the paper has it
	Others      float64 `csv:"others"`      // the share of the processors that other programs took; -1: not known
	Note        note    `csv:"note"`        // in what this is not what was asked for
	Kernel      string  `csv:"kernel"`
	Machine     string  `csv:"machine"`
	Date        string  `csv:"date"` // when it began, UTC
}

// is says whether two rows are of the same measurement.
func (r *paperRow) is(s *paperRow) bool {
	return r.Preset == s.Preset && r.Mode == s.Mode && r.Weights == s.Weights && r.Cache == s.Cache &&
		r.Threads == s.Threads && r.Test == s.Test && r.Depth == s.Depth && r.Wanted == s.Wanted
}

// paperColumns are the names of the fields.
func paperColumns() (names []string) {
	for f := range reflect.TypeFor[paperRow]().Fields() {
		names = append(names, f.Tag.Get("csv"))
	}
	return names
}

func (r *paperRow) record() (cells []string) {
	for _, v := range reflect.ValueOf(r).Elem().Fields() {
		cell := ""
		switch {
		case v.IsZero():
		case v.CanFloat():
			cell = strconv.FormatFloat(v.Float(), 'g', 5, 64)
		default:
			cell = fmt.Sprint(v)
		}
		cells = append(cells, cell)
	}
	return cells
}

// parse is record the other way.
func (r *paperRow) parse(cells []string) (err error) {
	for f, v := range reflect.ValueOf(r).Elem().Fields() {
		cell := cells[f.Index[0]]
		switch {
		case v.Kind() == reflect.String:
			v.SetString(cell)
		case cell == "":
		case v.CanFloat():
			var x float64
			x, err = strconv.ParseFloat(cell, 64)
			v.SetFloat(x)
		default:
			var x int64
			x, err = strconv.ParseInt(cell, 10, 64)
			v.SetInt(x)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Tag.Get("csv"), err)
		}
	}
	return nil
}

// paperRows are the rows there are: in a file, which is written anew with each one more, or printed as they come.
type paperRows struct {
	file  string // "": there is none
	out   io.Writer
	quiet float64 // rows that were disturbed more do not count as measured
	rows  []paperRow
	left  map[int]bool // places of rows that were asked for and are there already
}

// openPaperRows reads a file, if it is there.
func openPaperRows(file string, out io.Writer, quiet float64) (*paperRows, error) {
	p := &paperRows{file: file, out: out, quiet: quiet}
	if file == "" {
		w := csv.NewWriter(out)
		w.Write(paperColumns())
		w.Flush()
		return p, w.Error()
	}
	file, err := replaceable(file)
	if err != nil {
		return nil, usageError{err}
	}
	p.file = file
	// Before anything is measured: rows are written beside the file and take its place.
	if err := os.WriteFile(p.temp(), nil, 0o666); err != nil {
		return nil, usageError{fmt.Errorf("-to: %w", err)}
	}
	os.Remove(p.temp())
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	records, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	if err != nil || len(records) == 0 || !slices.Equal(records[0], paperColumns()) {
		return nil, usageError{fmt.Errorf("%s has not the columns of bench -paper: give another file with -to", file)}
	}
	for i, cells := range records[1:] {
		var r paperRow
		if err := r.parse(cells); err != nil {
			return nil, usageError{fmt.Errorf("%s: row %d: %w", file, i+1, err)}
		}
		p.rows = append(p.rows, r)
	}
	return p, nil
}

// has says whether a measurement need not be made again.
func (p *paperRows) has(r paperRow) bool {
	i := p.find(&r)
	if i < 0 || p.rows[i].Others > p.quiet {
		return false
	}
	if p.left == nil {
		p.left = map[int]bool{}
	}
	p.left[i] = true
	return true
}

func (p *paperRows) find(r *paperRow) int {
	return slices.IndexFunc(p.rows, func(s paperRow) bool { return s.is(r) })
}

// put adds a row, or takes away that of the same measurement for it.
func (p *paperRows) put(r paperRow) error {
	if p.file == "" {
		w := csv.NewWriter(p.out)
		w.Write(r.record())
		w.Flush()
		return w.Error()
	}
	if i := p.find(&r); i >= 0 {
		p.rows[i] = r
	} else {
		p.rows = append(p.rows, r)
	}
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	w.Write(paperColumns())
	for i := range p.rows {
		w.Write(p.rows[i].record())
	}
	w.Flush()
	if err := os.WriteFile(p.temp(), b.Bytes(), 0o666); err != nil {
		return err
	}
	return os.Rename(p.temp(), filepath.Clean(p.file))
}

// temp is where the rows are written first: a file that is cut short would lose hours.
func (p *paperRows) temp() string { return p.file + ".tmp" }
