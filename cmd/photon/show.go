package main

import (
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/photon-lm/photon"
)

// showLengths are the texts whose state show tells the size of, in tokens.
var showLengths = []int{2 << 10, 8 << 10, 32 << 10, 128 << 10}

// description is what show prints. Sizes are bytes.
type description struct {
	Name string `json:"name"`
	// Parameters leaves out the start latent, as the paper does.
	Parameters  int64            `json:"parameters"`
	StartLatent int64            `json:"start_latent"`
	Flat        bool             `json:"flat"`
	MetaContext int              `json:"meta_context"`
	Tensors     int              `json:"tensors,omitempty"`
	WeightBytes map[string]int64 `json:"weight_bytes"`
	StateBytes  []stateSize      `json:"state_bytes"`
	Config      photon.Config    `json:"config"`
}

// stateSize is the size of a session's keys and values, by how they are held.
type stateSize struct {
	Tokens int   `json:"tokens"`
	F32    int64 `json:"f32"`
	F16    int64 `json:"f16"`
	Int8   int64 `json:"int8"`
}

func setupShow(f *flag.FlagSet) func(c *console, args []string) error {
	model := modelFlags{}
	var preset string
	model.declareDir(f)
	f.Func("preset", "show a model that init can make, by `name`", filled(&preset))
	asJSON := f.Bool("json", false, "print one JSON object")
	return func(c *console, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("does not know what to do with %q: give a model with -model", args[0])}
		}
		if preset != "" && model.dir != "" {
			return usageError{fmt.Errorf("-model and -preset exclude each other")}
		}
		d, err := describe(model, preset)
		if err != nil {
			return err
		}
		if *asJSON {
			return writeJSON(c.stdout, d)
		}
		return d.print(c.stdout)
	}
}

func describe(model modelFlags, preset string) (*description, error) {
	var d *description
	if preset != "" {
		cfg, err := photon.Preset(preset)
		if err != nil {
			return nil, usageError{err}
		}
		d = &description{Name: preset, Config: cfg}
		n := cfg.Parameters()
		d.WeightBytes = map[string]int64{"F32": 4 * n, "BF16": 2 * n}
	} else {
		files, err := model.files()
		if err != nil {
			return nil, err
		}
		info, err := model.inspect(files)
		if err != nil {
			return nil, err
		}
		d = &description{Name: model.name(), Config: info.Config, Tensors: info.Tensors, WeightBytes: info.DTypes}
	}
	cfg := d.Config
	d.Flat, d.MetaContext = cfg.Flat(), cfg.MetaContext()
	if !d.Flat {
		d.StartLatent = int64(cfg.Levels[len(cfg.Levels)-1].Encoder.HiddenSize)
	}
	d.Parameters = cfg.Parameters() - d.StartLatent
	for _, n := range showLengths {
		d.StateBytes = append(d.StateBytes, stateSize{n,
			cfg.StateBytes(n, photon.CacheF32), cfg.StateBytes(n, photon.CacheF16), cfg.StateBytes(n, photon.CacheInt8)})
	}
	return d, nil
}

// extras names what a flat model's layers have beside those of a LLaMA transformer.
func extras(s photon.StackConfig) string {
	text := ""
	for _, e := range []struct {
		has  bool
		what string
	}{
		{s.QKVBias && !s.OutBias, "biases of q, k and v"}, {s.OutBias, "biases of q, k, v and o"},
		{s.MLPBias, "biases of gate, up and down"}, {s.QKNorm, "norms of q and k"},
		{s.RopeScaling.Type != "", "rotation scaled: " + s.RopeScaling.Type},
		{len(s.NoRope) > 0, fmt.Sprintf("%d layers without rotation", len(s.NoRope))},
	} {
		if e.has {
			text += "; " + e.what
		}
	}
	return text
}

func (d *description) print(w io.Writer) error {
	cfg := d.Config
	fmt.Fprintf(w, "%s\n\n", d.Name)
	if d.Flat {
		fmt.Fprintf(w, "architecture  flat transformer, %s%s\n", cfg.ModelType, extras(cfg.Transformer))
	} else {
		levels := "levels"
		if len(cfg.Levels) == 1 {
			levels = "level"
		}
		fmt.Fprintf(w, "architecture  PHOTON of %d %s, %d tokens in a unit of the top\n", len(cfg.Levels), levels, d.MetaContext)
	}
	fmt.Fprintf(w, "vocabulary    %s", count(cfg.VocabSize))
	if cfg.TieWordEmbeddings {
		fmt.Fprint(w, ", head tied to the embedding")
	}
	if cfg.Content == "states" {
		fmt.Fprint(w, ", read as the first encoder does")
	}
	fmt.Fprintf(w, "\nembedding     %s wide\n", count(cfg.EmbeddingSize))
	fmt.Fprintf(w, "parameters    %s", count(d.Parameters))
	if d.StartLatent > 0 {
		fmt.Fprintf(w, ", and a start latent of %s", count(d.StartLatent))
	}
	fmt.Fprintln(w)
	for _, format := range sortedKeys(d.WeightBytes) {
		fmt.Fprintf(w, "weights       %s bytes as %s\n", count(d.WeightBytes[format]), format)
	}

	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "stack\tchunk\tprefix\tlayers\twidth\theads\tkv heads\thead\tffn\twindow\trope\t")
	row := func(name, chunk, prefix string, s photon.StackConfig) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%g\t\n",
			name, chunk, prefix,
			s.Layers, s.HiddenSize, s.Heads, s.KVHeads, s.HeadDim, s.IntermediateSize, sees(s), s.RopeTheta)
	}
	if d.Flat {
		row("transformer", "", "", cfg.Transformer)
	}
	if cfg.TokenEncoder != nil {
		row("token encoder", "", "", *cfg.TokenEncoder)
	}
	for i, l := range cfg.Levels {
		row(fmt.Sprintf("encoder %d", i+1), fmt.Sprintf("%d %s", l.ChunkSize, l.Chunker), "", l.Encoder)
		prefix := "added"
		if l.PrefixLength > 0 {
			prefix = fmt.Sprint(l.PrefixLength)
		}
		row(fmt.Sprintf("decoder %d", i+1), "", prefix, l.Decoder)
		for _, e := range l.Decoder.Memories { // layers by number; the width is that of the states
			name, rows := fmt.Sprintf("memory of level %d", e.Level), e.Level
			if e.Unpack {
				name, rows = name+", unpacked", rows-1
			}
			width := cfg.EmbeddingSize
			if rows > 0 {
				width = cfg.Levels[rows-1].Encoder.HiddenSize
			}
			layers := strings.ReplaceAll(strings.Trim(fmt.Sprint(e.Layers), "[]"), " ", ",")
			fmt.Fprintf(t, "%s\t\t\tin %s\t%d\t%d\t%d\t%d\t\t%s\t%g\t\n",
				name, layers, width, e.Heads, e.KVHeads, e.HeadDim, window(e.SlidingWindow), e.RopeTheta)
		}
	}
	t.Flush()

	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "state after\tf32\tf16\tint8\t")
	for _, s := range d.StateBytes {
		fmt.Fprintf(t, "%s tokens\t%s\t%s\t%s\t\n", count(s.Tokens), size(s.F32), size(s.F16), size(s.Int8))
	}
	return t.Flush()
}

// sees says how many rows a row sees, layers with the same number together.
func sees(s photon.StackConfig) string {
	if s.Windows == nil {
		return window(s.SlidingWindow)
	}
	var runs []string
	for from, n := 0, 1; n <= len(s.Windows); n++ {
		if n < len(s.Windows) && s.Windows[n] == s.Windows[from] {
			continue
		}
		run := "all"
		if s.Windows[from] > 0 {
			run = window(s.Windows[from])
		}
		if n-from > 1 {
			run = fmt.Sprintf("%d×%s", n-from, run)
		}
		runs, from = append(runs, run), n
	}
	return strings.Join(runs, " ")
}

func window(n int) string {
	if n == 0 {
		return "-"
	}
	return count(n)
}
