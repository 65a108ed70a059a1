package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
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
	f.StringVar(&p.file, "to", "", "with -paper: keep the rows in this `file`; those that it has are not measured again")
	f.Func("presets", "with -paper: measure these `names` (default "+strings.Join(paperPresets, ",")+")",
		names(&p.presets, photon.PresetNames()))
	f.Func("only", "with -paper: measure only these `tests` (default "+strings.Join(paperTests, ",")+")",
		names(&p.only, paperTests))
	f.Float64Var(&p.seconds, "seconds", 60, "with -paper: what a measurement may take; longer ones run fewer texts or tokens, and\n"+
		"their rows say so. A single text may take four times as long, reading a long one ten\ntimes")
	f.Float64Var(&p.memory, "memory", 8, "with -paper: `GiB` of keys and values that texts may hold together")
	f.Float64Var(&p.rate, "rate", 0.5, "with -paper: requests a second that arrive, of 64")
	f.Float64Var(&p.quiet, "quiet", 1, "with -paper: measure rows of the file again during which other programs took more\n"+
		"than this `share` of the processors")
}

// onlyPaper are the flags that need -paper, notPaper those that do not go with it.
var (
	onlyPaper = []string{"to", "presets", "only", "seconds", "memory", "rate", "quiet"}
	notPaper  = []string{"preset", "p", "n", "b", "mode", "r", "json", "csv", "bench"}
)

// names reads a list of some of known, with commas between them.
func names(to *[]string, known []string) func(list string) error {
	return func(list string) error {
		*to = strings.Split(list, ",")
		for _, name := range *to {
			if !slices.Contains(known, name) {
				return fmt.Errorf("%q is none of %s", name, strings.Join(known, ", "))
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
	defer p.progress.done()
	if given["model"] {
		m, err := p.model.load(ctx, c)
		if err != nil {
			return err
		}
		defer m.Close()
		return p.measureModel(ctx, m, p.model.name())
	}
	if p.presets == nil {
		p.presets = paperPresets
	}
	for _, name := range p.presets {
		if err := p.measurePreset(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// measurePreset makes a model of random weights, which is gone afterwards.
func (p *paper) measurePreset(ctx context.Context, name string) error {
	cfg, err := photon.Preset(name)
	if err != nil {
		return err
	}
	if len(p.missing(cfg, name)) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "photon-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := p.model
	files.dir = filepath.Join(dir, name)
	if err := writeRandom(ctx, p.console, files.dir, cfg, 0, "BF16"); err != nil {
		return err
	}
	m, err := files.load(ctx, p.console)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := os.RemoveAll(dir); err != nil { // the weights are in memory
		return err
	}
	return p.measureModel(ctx, m, name)
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
	return int(max(1, p.memoryBytes()/max(1, cfg.StateBytes(tokens, p.model.cache))))
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

// measureModel measures the rows that are missing of a model.
func (p *paper) measureModel(ctx context.Context, m *photon.Model, name string) error {
	todo := p.missing(m.Config(), name)
	if len(todo) == 0 {
		return nil
	}
	debug.FreeOSMemory()
	t := paperModel{paper: p, m: m, vocab: m.Config().VocabSize, bytes: residentBytes()}
	var long []paperRow
	for _, r := range todo {
		if strings.HasPrefix(r.Test, "long") { // they share the reading
			long = append(long, r)
			continue
		}
		err := t.measured(&r, func() error {
			switch r.Test {
			case "pf", "de":
				return t.one(ctx, &r)
			case "pf-many", "de-many":
				return t.many(ctx, &r)
			case "samples":
				return t.samples(ctx, &r)
			}
			return t.arrivals(ctx, &r)
		})
		if err != nil {
			return err
		}
	}
	return t.long(ctx, long)
}

// paperModel is a model that is measured.
type paperModel struct {
	*paper
	m     *photon.Model
	vocab int
	bytes int64 // that the process takes with the model alone
}

// measured has f measure a row, and keeps it.
func (t *paperModel) measured(r *paperRow, f func() error) error {
	t.progress.show("%s: %s %s, %s tokens, %s texts", r.Preset, r.Test, r.Mode, count(r.Depth), count(r.Wanted))
	if r.Test != "long" { // which tells of the first tokens behind a prompt as they come
		debug.FreeOSMemory()
	}
	resetPeak()
	watch, begin := watchOthers(), time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s %s: %w", r.Preset, r.Test, err)
	}
	r.Others, r.PeakBytes, r.ModelBytes = watch.share(), peakBytes(), t.bytes
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

// text is tokens first … first+n-1 of the pseudo-random text of that number.
func (t *paperModel) text(number, first, n int) []int { return randomIDs(t.m, number<<24+first, n) }

// options generate greedily, past the end of a text.
func (t *paperModel) options(mode string, more ...photon.Option) []photon.Option {
	opts := append([]photon.Option{photon.Temperature(0), photon.MaxTokens(-1)}, endless(t.m)...)
	if mode == "recgen" {
		opts = append(opts, photon.Mode(photon.RecGen))
	}
	return append(opts, more...)
}
