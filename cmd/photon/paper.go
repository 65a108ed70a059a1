package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/photon-lm/photon"
)

// paper is what bench -paper measures: the rows of the PHOTON paper's Tables 1 and 2, and what it claims but does not
// measure.
type paper struct {
	on      bool
	model   modelFlags
	presets []string
	only    []string // tests
	depths  []int    // of long texts
	seconds float64  // that one measurement may take, about
	memory  float64  // GiB of state for many texts
	rate    float64  // requests a second that arrive
	file    string   // where rows are kept; "": they are printed
	quiet   float64  // rows that others disturbed more are measured again

	console  *console
	progress *progress
	rows     *paperRows
}

// The paper's two loads, in tokens: prefill-heavy and decode-heavy.
var paperLoads = []struct {
	test    string
	in, out int
}{{"pf", 2048, 128}, {"de", 128, 2048}}

// paperTests are the measurements of a model, in their order. Those in -many run as many texts as the memory holds.
var paperTests = []string{"pf", "pf-many", "de", "de-many", "samples", "arrivals", "long", "long-many"}

// paperPresets are the nine of the paper, and what should be seen beside them.
var paperPresets = []string{
	"vanilla-600m", "rival-600m", "block-600m", "photon-600m", "bounded-600m", "memory-600m",
	"vanilla-900m", "rival-900m", "block-900m", "photon-900m", "bounded-900m",
	"vanilla-1.2b", "rival-1.2b", "block-1.2b", "photon-1.2b", "bounded-1.2b",
}

// paperDepths are those of long texts, in tokens: after the beginning, the middle of what a decode-heavy text is.
var paperDepths = []int{0, 128 + 2048/2, 8 << 10, 32 << 10, 128 << 10, 1 << 20}

// declare adds the flags that only -paper has.
func (p *paper) declare(f *flag.FlagSet) {
	f.BoolVar(&p.on, "paper", false, "measure the loads of the PHOTON paper, long texts and many, of its presets or of\n"+
		"-model: a row of comma-separated values a measurement, with int8 weights and an f16\n"+
		"cache unless -weights and -cache are given")
	f.Func("to", "with -paper: keep the rows in this `file`; those that it has are not measured again", filled(&p.file))
	f.Func("presets", "with -paper: measure these `names` (default "+strings.Join(paperPresets, ",")+")",
		names(&p.presets, photon.PresetNames()))
	f.Func("only", "with -paper: measure only these `tests` (default "+strings.Join(paperTests, ",")+")",
		names(&p.only, paperTests))
	f.Float64Var(&p.seconds, "seconds", 60, "with -paper: what a measurement may take; longer ones run fewer texts or "+
		"tokens,\n"+
		"and their rows say so. A single text may take four times as long, reading a long one\nten times")
	f.Float64Var(&p.memory, "memory", 8, "with -paper: `GiB` of keys and values that texts may hold together")
	f.Float64Var(&p.rate, "rate", 0.5, "with -paper: requests a second that arrive, of 64")
	f.Float64Var(&p.quiet, "quiet", 1, "with -paper: measure rows of the file again during which other programs "+
		"took more\n"+
		"than this `share` of the processors")
}

// onlyPaper are the flags that need -paper, notPaper those that do not go with it.
var (
	onlyPaper = []string{"to", "presets", "only", "seconds", "memory", "rate", "quiet"}
	notPaper  = []string{"preset", "p", "n", "b", "mode", "r", "apart", "json", "csv", "bench"}
)

// names reads a list of some of known, with commas between them.
func names(to *[]string, known []string) func(list string) error {
	return func(list string) error {
		*to = nil
		for name := range strings.SplitSeq(list, ",") {
			if !slices.Contains(known, name) {
				return fmt.Errorf("%q is none of %s", name, strings.Join(known, ", "))
			}
			if !slices.Contains(*to, name) {
				*to = append(*to, name)
			}
		}
		return nil
	}
}

// check holds the flags that were given against each other.
func (p *paper) check(given map[string]bool) error {
	for _, name := range onlyPaper {
		if given[name] && !p.on {
			return fmt.Errorf("-%s needs -paper", name)
		}
	}
	for _, name := range notPaper {
		if given[name] && p.on {
			return fmt.Errorf("-%s does not go with -paper, which has loads of its own", name)
		}
	}
	switch {
	case given["model"] && given["presets"]:
		return fmt.Errorf("-model and -presets exclude each other")
	case !(p.seconds > 0 && p.seconds < 1e6):
		return fmt.Errorf("-seconds %g: want more than 0", p.seconds)
	case !(p.memory > 0 && p.memory < 1e6):
		return fmt.Errorf("-memory %g: want more than 0", p.memory)
	case !(p.rate > 0 && p.rate < 1e6):
		return fmt.Errorf("-rate %g: want more than 0", p.rate)
	}
	return nil
}

// run measures every model that some row misses.
func (p *paper) run(ctx context.Context, c *console, given map[string]bool) (err error) {
	if !given["weights"] {
		p.model.weights = photon.Int8
	}
	if !given["cache"] {
		p.model.cache = photon.CacheF16
	}
	if !given["d"] {
		p.depths = paperDepths
	}
	if p.only == nil {
		p.only = paperTests
	}
	p.console = c
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // or else garbage might take as much memory again as the texts
	if p.rows, err = openPaperRows(p.file, c.stdout, p.quiet); err != nil {
		return err
	}
	p.progress = c.progress()
	defer func() {
		p.progress.done()
		if n := len(p.rows.left); n > 0 {
			const left = "%s has %d of these rows already, which were left as they are, whatever their -seconds, " +
				"-memory, -rate and kernel: to measure them again give another file\n"
			fmt.Fprintf(c.stderr, left, p.file, n)
		}
	}()
	if given["model"] {
		m, err := p.load(ctx, p.model, p.model.name())
		if err != nil {
			return err
		}
		defer m.m.Close()
		return p.measure(ctx, []*paperModel{m})
	}
	if p.presets == nil {
		p.presets = paperPresets
	}
	for rest := p.presets; len(rest) > 0; {
		size := rest[0][strings.LastIndexByte(rest[0], '-'):]
		var same, others []string
		for _, name := range rest {
			if strings.HasSuffix(name, size) {
				same = append(same, name)
			} else {
				others = append(others, name)
			}
		}
		if err := p.measurePresets(ctx, same); err != nil {
			return err
		}
		rest = others
	}
	return nil
}

// measurePresets measures models of random weights, of one size: they take turns, so that what happens to the machine
// meanwhile happens to all.
func (p *paper) measurePresets(ctx context.Context, names []string) error {
	var list []*paperModel
	defer func() {
		for _, t := range list {
			t.m.Close()
		}
	}()
	for _, name := range names {
		cfg, err := photon.Preset(name)
		if err != nil {
			return err
		}
		if len(p.missing(cfg, name)) == 0 {
			continue
		}
		t, err := p.loadPreset(ctx, cfg, name)
		if err != nil {
			return err
		}
		list = append(list, t)
	}
	return p.measure(ctx, list)
}

// loadPreset makes a model whose files are gone when it is loaded.
func (p *paper) loadPreset(ctx context.Context, cfg photon.Config, name string) (*paperModel, error) {
	dir, err := os.MkdirTemp("", "photon-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	files := p.model
	files.dir = filepath.Join(dir, name)
	if err := writeRandom(ctx, p.console, files.dir, cfg, 0, "BF16"); err != nil {
		return nil, err
	}
	return p.load(ctx, files, name)
}

func (p *paper) load(ctx context.Context, files modelFlags, name string) (*paperModel, error) {
	debug.FreeOSMemory()
	before := residentBytes()
	m, err := files.load(ctx, p.console)
	if err != nil {
		return nil, err
	}
	debug.FreeOSMemory()
	return &paperModel{paper: p, m: m, name: name, bytes: max(0, residentBytes()-before), disturbed: -1}, nil
}

// missing are the rows to measure, of which only what tells them apart is set.
func (p *paper) missing(cfg photon.Config, name string) (list []paperRow) {
	modes := []string{"hiergen"}
	if hasRecGen(cfg) {
		modes = append(modes, "recgen")
	}
	add := func(test, mode string, depth, wanted int) {
		if !slices.Contains(p.only, test) {
			return
		}
		r := paperRow{Preset: name, Mode: mode, Weights: p.model.weights.String(), Cache: p.model.cache.String(),
			Threads: p.threads(), Test: test, Depth: depth, Wanted: wanted}
		if !p.rows.has(r) {
			list = append(list, r)
		}
	}
	for _, load := range paperLoads {
		for _, mode := range modes {
			add(load.test, mode, load.in, 1)
		}
		add(load.test+"-many", "hiergen", load.in, p.holds(cfg, load.in+load.out))
	}
	for _, texts := range []int{1, 8, 32, 128} {
		add("samples", "hiergen", 2048, texts)
	}
	add("arrivals", "hiergen", arrivalPrompt, arrivalTexts)
	for _, depth := range p.depths {
		add("long", "hiergen", depth, 1)
		if depth > 0 {
			add("long-many", "hiergen", depth, p.holds(cfg, depth))
		}
	}
	return list
}

// holds is how many texts of so many tokens the memory holds; one at least.
func (p *paper) holds(cfg photon.Config, tokens int) int {
	return int(min(max(1, p.memoryBytes()/max(1, cfg.StateBytes(tokens, p.model.cache))), math.MaxInt32))
}

func (p *paper) memoryBytes() int64 { return int64(p.memory * (1 << 30)) }

func (p *paper) threads() int {
	if p.model.threads == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return p.model.threads
}

// hasRecGen says whether a model can generate by RecGen: see photon.RecGen.
func hasRecGen(cfg photon.Config) bool {
	if len(cfg.Levels) < 2 || cfg.FormatVersion != 1 {
		return false
	}
	for _, l := range cfg.Levels {
		if l.Decoder.SlidingWindow > 0 || l.Decoder.Windows != nil {
			return false
		}
	}
	return true
}

// A measurement fills in a row.
type measurement func(ctx context.Context, r *paperRow) error

// turn is a row to measure, and its model.
type turn struct {
	*paperModel
	row paperRow
}

// order says which of two rows is measured first: those of the same load stand together.
func (t *turn) order(u *turn) int {
	key := func(r *paperRow) [4]int {
		test := slices.Index(paperTests, strings.TrimSuffix(r.Test, "-many"))
		samples := 0
		if r.Test == "samples" {
			samples = r.Wanted
		}
		return [4]int{test, r.Depth, samples, slices.Index(paperTests, r.Test)}
	}
	a, b := key(&t.row), key(&u.row)
	return slices.Compare(a[:], b[:])
}

// measure measures the rows that are missing of models, which take turns.
func (p *paper) measure(ctx context.Context, models []*paperModel) error {
	var turns []turn
	for _, t := range models {
		for _, r := range p.missing(t.m.Config(), t.name) {
			turns = append(turns, turn{t, r})
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.order(&b) })
	for _, t := range turns {
		r, f := &t.row, measurement(t.arrivals)
		switch r.Test {
		case "pf", "de":
			f = t.one
		case "pf-many", "de-many":
			f = t.many
		case "samples":
			f = t.samples
		case "long", "long-many":
			if err := t.readTo(ctx, r.Depth); err != nil {
				return err
			}
			f = t.long
		}
		elsewhere := int64(0) // what the process holds for other models
		for _, u := range models {
			if u != t.paperModel {
				elsewhere += u.bytes + u.held()
			}
		}
		if err := t.measured(ctx, r, f, elsewhere); err != nil {
			return err
		}
	}
	return nil
}

// paperModel is a model that is measured.
type paperModel struct {
	*paper
	m     *photon.Model
	name  string
	bytes int64 // that the process takes for it

	// A long text, the time of its reading, what others took meanwhile, and why it ended.
	text      *photon.Session
	reading   time.Duration
	disturbed float64
	stopped   note
}

// measured has f measure a row, and keeps it; elsewhere is what the process holds for other models.
func (t *paperModel) measured(ctx context.Context, r *paperRow, f measurement, elsewhere int64) error {
	t.progress.show("%s: %s %s, %s tokens, %s texts", r.Preset, r.Test, r.Mode, count(r.Depth), count(r.Wanted))
	if r.Test != "long" { // which tells of the first tokens behind a prompt as they come
		debug.FreeOSMemory()
	}
	resetPeak()
	watch, begin := watchOthers(), time.Now()
	r.Others = -1 // f may know of more than it takes itself
	if err := f(ctx, r); err != nil {
		return fmt.Errorf("%s %s: %w", r.Preset, r.Test, err)
	}
	r.Others, r.PeakBytes, r.ModelBytes = max(r.Others, watch.share()), max(0, peakBytes()-elsewhere), t.bytes
	r.Machine, r.Kernel, r.Date = machineName(), t.m.Kernel(), begin.UTC().Format("2006-01-02 15:04")
	if r.StateText > 0 {
		r.TPM = r.PerSecond / 1e3 / (float64(r.StateText) / (1 << 30))
	}
	t.progress.done()
	what := fmt.Sprintf("%s %s %s: %s tokens in, %s of %s texts",
		r.Preset, r.Test, r.Mode, count(r.Depth), count(r.Texts), count(r.Wanted))
	_, err := fmt.Fprintf(t.console.stderr, "%s: %s tokens/s, decode %s, first token %.0f ms (%.0f s)%s\n", what,
		perSecond(r.PerSecond), perSecond(r.DecodePerSecond), r.FirstToken50, time.Since(begin).Seconds(), r.Note.line())
	return errors.Join(err, t.rows.put(*r))
}

// note says in what a row is not what was asked for.
type note string

func (n *note) add(format string, args ...any) {
	if *n != "" {
		*n += "; "
	}
	*n += note(fmt.Sprintf(format, args...))
}

func (n note) line() string {
	if n == "" {
		return ""
	}
	return ": " + string(n)
}

// ids are tokens first … first+n-1 of the pseudo-random text of that number.
func (t *paperModel) ids(number, first, n int) []int {
	return randomIDs(t.m, int64(number)<<24+int64(first), n)
}

// options generate greedily, past the end of a text.
func (t *paperModel) options(mode string, more ...photon.Option) []photon.Option {
	opts := append([]photon.Option{photon.Temperature(0), photon.MaxTokens(-1)}, endless(t.m)...)
	if mode == "recgen" {
		opts = append(opts, photon.Mode(photon.RecGen))
	}
	return append(opts, more...)
}
