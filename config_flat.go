package photon

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/photon-lm/photon/internal/strictjson"
)

// flatKind is a model_type of Hugging Face's whose models are one causal stack: what its layers have beside those of a
// LLaMA transformer, and what its configuration says where it says nothing.
type flatKind struct {
	architecture string
	qkvBias      bool // always
	qkNorm       bool
	attnBias     bool // attention_bias says whether q, k, v and o have one
	mlpBias      bool // mlp_bias says whether gate, up and down have one
	ropes        bool // no_rope_layers says which layers rotate
	windows      flatWindows
	tied         bool     // unless tie_word_embeddings is there
	theta        float64  // unless rope_theta is there
	must         []string // keys whose defaults are not those of a LLaMA
}

// flatWindows says how a kind's configuration gives windows to its layers.
type flatWindows uint8

const (
	noWindows    flatWindows = iota
	oneWindow                // sliding_window is that of all layers
	typedWindows             // layer_types says which have it, all without the key
	// Where use_sliding_window is true: by layer_types, or without them from layer max_window_layers on, or those that do
	// not rotate.
	switchWindows
	noRopeWindows
)

var flatKinds = map[string]flatKind{
	modelTypeLlama: {architecture: "LlamaForCausalLM", attnBias: true, mlpBias: true, theta: 1e4},
	modelTypeMistral: {architecture: "MistralForCausalLM", windows: oneWindow, theta: 1e4,
		must: []string{keyKVHeads, keyWindow}},
	modelTypeMinistral: {architecture: "MinistralForCausalLM", windows: typedWindows, theta: 1e4,
		must: []string{keyKVHeads, keyWindow}},
	modelTypeQwen2: {architecture: "Qwen2ForCausalLM", qkvBias: true, windows: switchWindows, theta: 1e4,
		must: []string{keyKVHeads}},
	modelTypeQwen3: {architecture: "Qwen3ForCausalLM", attnBias: true, qkNorm: true, windows: switchWindows, theta: 1e4,
		must: []string{keyKVHeads, keyHeadDim}},
	modelTypeSmolLM3: {architecture: "SmolLM3ForCausalLM", attnBias: true, mlpBias: true, ropes: true,
		windows: noRopeWindows,
		tied:    true, theta: 2e6, must: []string{keyKVHeads}},
}

const (
	keyKVHeads = "num_key_value_heads"
	keyHeadDim = "head_dim"
	keyWindow  = "sliding_window"

	layerFull    = "full_attention"
	layerSliding = "sliding_attention"

	ropeDefault = "default"
	ropeLinear  = "linear"
	ropeLlama3  = "llama3"
	ropeFactors = "factors" // of this library: what a GGUF file has of any of the others
)

// switched tells of a kind whose windows are off unless use_sliding_window is true.
func (k flatKind) switched() bool { return k.windows == switchWindows || k.windows == noRopeWindows }

// layerKeys are what a configuration says of its layers.
type layerKeys struct {
	types        []string // layer_types; nil: none
	sliding      bool     // use_sliding_window
	firstSliding int      // max_window_layers
	ropes        []int    // no_rope_layers: 1 for each layer that rotates; nil: none
	ropeInterval int      // no_rope_layer_interval
}

// readFlat reads the keys that Hugging Face's configuration of a kind has, with its defaults. max_position_embeddings
// changes nothing in the arithmetic: it says how far the model was trained, and texts may go on beyond.
func (c *Config) readFlat(r *strictjson.Reader, kind flatKind) error {
	s := &c.Transformer
	field := func(key string, read func() error) strictjson.Field {
		return strictjson.Field{Key: key, Read: read, Required: slices.Contains(kind.must, key)}
	}
	unlessNull := func(key string, read func() error) strictjson.Field { return strictjson.May(key, r.OrNull(read)) }
	const absent = math.MinInt32
	var keys layerKeys
	var attnBias, mlpBias bool
	var ropes []RopeScaling // of rope_parameters and of rope_scaling, where they are there
	rope := func() error {
		ropes = append(ropes, RopeScaling{})
		return ropes[len(ropes)-1].read(r, &s.RopeTheta)
	}
	keys.firstSliding, keys.ropeInterval = absent, 4
	s.KVHeads, s.HeadDim, s.RopeTheta, c.RMSNormEps, c.TieWordEmbeddings = absent, absent, -1, 1e-6, kind.tied
	err := r.Fields(
		strictjson.Need("vocab_size", readInt(r, &c.VocabSize)),
		strictjson.Need("hidden_size", readInt(r, &s.HiddenSize)),
		strictjson.Need("intermediate_size", readInt(r, &s.IntermediateSize)),
		strictjson.Need("num_hidden_layers", readInt(r, &s.Layers)),
		strictjson.Need("num_attention_heads", readInt(r, &s.Heads)),
		field(keyKVHeads, r.OrNull(readInt(r, &s.KVHeads))),
		field(keyWindow, r.OrNull(readInt(r, &s.SlidingWindow))),
		unlessNull("use_sliding_window", strictjson.Into(&keys.sliding, r.Bool)),
		unlessNull("max_window_layers", readInt(r, &keys.firstSliding)),
		unlessNull("layer_types", func() error {
			keys.types = make([]string, 0, r.Room(len(`"",`)))
			return r.Array(func(i int) error {
				keys.types = append(keys.types, "")
				return strictjson.Into(&keys.types[i], r.String)()
			})
		}),
		unlessNull("no_rope_layers", readInts(r, &keys.ropes)),
		unlessNull("no_rope_layer_interval", readInt(r, &keys.ropeInterval)),
		field(keyHeadDim, r.OrNull(readInt(r, &s.HeadDim))),
		strictjson.May("rms_norm_eps", strictjson.Into(&c.RMSNormEps, r.Float)),
		unlessNull("rope_theta", readTheta(r, &s.RopeTheta)),
		unlessNull("rope_parameters", rope),
		unlessNull("rope_scaling", rope),
		unlessNull("partial_rotary_factor", wholeRotation(r)),
		strictjson.May("tie_word_embeddings", func() error {
			c.TieWordEmbeddings = false // null counts as that, whatever the kind
			return r.OrNull(strictjson.Into(&c.TieWordEmbeddings, r.Bool))()
		}),
		unlessNull("bos_token_id", readInt(r, &c.BOSTokenID)),
		unlessNull("eos_token_id", readInts(r, &c.EOSTokenIDs)),
		strictjson.May("hidden_act", mustBe(r, "silu", "swish")),
		unlessNull("attention_bias", strictjson.Into(&attnBias, r.Bool)),
		unlessNull("mlp_bias", strictjson.Into(&mlpBias, r.Bool)),
		unlessNull("use_mrope", mustBeFalse(r)),
		unlessNull("quantization_config", notRun("give weights that are not, or of the int8 form")),
	)
	if err != nil {
		return err
	}
	if attnBias && !kind.attnBias && !kind.qkvBias {
		return fmt.Errorf("attention_bias is true, which model_type %q does not have: %w", c.ModelType, ErrUnsupported)
	}
	if mlpBias && !kind.mlpBias {
		return fmt.Errorf("mlp_bias is true, which model_type %q does not have: %w", c.ModelType, ErrUnsupported)
	}
	// A Qwen2 has biases of q, k and v and none of o, whatever attention_bias says.
	s.QKVBias, s.OutBias, s.MLPBias = kind.qkvBias || attnBias, attnBias && kind.attnBias, mlpBias
	s.QKNorm = kind.qkNorm
	for _, p := range ropes {
		if s.RopeScaling = p; !reflect.DeepEqual(p, ropes[0]) {
			return fmt.Errorf("rope_parameters and rope_scaling say different things: %w", ErrCorrupt)
		}
	}
	if s.KVHeads == absent {
		s.KVHeads = s.Heads
	}
	if s.HeadDim == absent {
		if s.Heads < 1 || s.HiddenSize%s.Heads != 0 {
			return fmt.Errorf("hidden_size %d is no multiple of num_attention_heads %d, and head_dim is missing: %w",
				s.HiddenSize, s.Heads, ErrCorrupt)
		}
		s.HeadDim = s.HiddenSize / s.Heads
	}
	if s.RopeTheta < 0 {
		s.RopeTheta = kind.theta
	}
	c.EmbeddingSize = s.HiddenSize
	if s.Layers < 1 || s.Layers > maxTensors/tensorsPerLayer {
		return nil // validate says so
	}
	if err := c.readRotations(kind, keys); err != nil {
		return err
	}
	return c.readLayerTypes(kind, keys)
}

// readRotations settles which layers rotate.
func (c *Config) readRotations(kind flatKind, keys layerKeys) error {
	s := &c.Transformer
	if !kind.ropes {
		if slices.Contains(keys.ropes, 0) {
			return fmt.Errorf("no_rope_layers has layers without rotation, which model_type %q does not have: %w",
				c.ModelType, ErrUnsupported)
		}
		return nil
	}
	if keys.ropes != nil && len(keys.ropes) < s.Layers {
		return fmt.Errorf("no_rope_layers has %d entries, want one for each of %d layers: %w", len(keys.ropes), s.Layers,
			ErrCorrupt)
	}
	if keys.ropeInterval < 1 {
		return fmt.Errorf("no_rope_layer_interval is %d, want at least 1: %w", keys.ropeInterval, ErrCorrupt)
	}
	for i := range s.Layers {
		rotates := (i+1)%keys.ropeInterval != 0
		if keys.ropes != nil {
			rotates = keys.ropes[i] != 0
		}
		if !rotates {
			s.NoRope = append(s.NoRope, i)
		}
	}
	return nil
}

func withoutRope(ascending []int, layer int) bool {
	_, found := slices.BinarySearch(ascending, layer)
	return found
}

// readLayerTypes settles which layers have the window.
func (c *Config) readLayerTypes(kind flatKind, keys layerKeys) error {
	s := &c.Transformer
	window, types := s.SlidingWindow, keys.types
	if kind.switched() && !keys.sliding {
		window = 0
	}
	switch kind.windows {
	case noWindows:
		if window != 0 {
			return fmt.Errorf("sliding_window is %d, which model_type %q does not have: want %q: %w",
				window, c.ModelType, modelTypeMistral, ErrUnsupported)
		}
	case switchWindows:
		if window != 0 && types == nil && keys.firstSliding < 0 {
			return fmt.Errorf("use_sliding_window is true, but neither layer_types nor max_window_layers is there: %w",
				ErrCorrupt)
		}
	}
	slides := func(layer int) bool {
		switch {
		case types != nil:
			return types[layer] == layerSliding
		case kind.windows == switchWindows:
			return window != 0 && layer >= keys.firstSliding
		case kind.windows == noRopeWindows:
			return window != 0 && withoutRope(s.NoRope, layer)
		}
		return window != 0
	}
	if types != nil && len(types) != s.Layers {
		return fmt.Errorf("layer_types has %d entries, want one for each of %d layers: %w", len(types), s.Layers, ErrCorrupt)
	}
	for i, t := range types {
		plain := layerFull // of a kind whose layers are all alike
		if window != 0 {
			plain = layerSliding
		}
		switch {
		case t != plain && kind.windows <= oneWindow:
			return fmt.Errorf("layer_types[%d] is %.80q, want %q for model_type %q: %w", i, t, plain, c.ModelType,
				ErrUnsupported)
		case t != layerFull && t != layerSliding:
			return fmt.Errorf("layer_types[%d] is %.80q, want %q or %q: %w", i, t, layerSliding, layerFull, ErrUnsupported)
		case t == layerSliding && window == 0:
			return fmt.Errorf("layer_types[%d] is %q, but there is no sliding_window, or use_sliding_window is not true: %w",
				i, t, ErrCorrupt)
		}
	}
	if kind.windows <= oneWindow {
		return nil
	}
	s.SlidingWindow = 0
	windows, some := make([]int, s.Layers), kind.windows == typedWindows
	for i := range windows {
		if slides(i) {
			windows[i], some = window, true
		}
	}
	if some {
		s.Windows = windows
	}
	return nil
}

// read reads rope_parameters or rope_scaling. What it says and is not run is refused: another rope_type, a rotation of
// a part of the head, parameters for each type of layer.
func (p *RopeScaling) read(r *strictjson.Reader, theta *float64) error {
	var other string // a key that no rotation known here has
	kind := func() error {
		before := p.Type
		if err := strictjson.Into(&p.Type, r.String)(); err != nil {
			return err
		}
		if before != "" && p.Type != before {
			return fmt.Errorf("rope_type and type are %.80q and %.80q: %w", before, p.Type, ErrCorrupt)
		}
		return nil
	}
	fields := []strictjson.Field{
		strictjson.May("rope_type", kind),
		strictjson.May("type", kind), // the same in older files
		strictjson.May("rope_theta", readTheta(r, theta)),
		strictjson.May("factor", strictjson.Into(&p.Factor, r.Float)),
		strictjson.May("low_freq_factor", strictjson.Into(&p.LowFreqFactor, r.Float)),
		strictjson.May("high_freq_factor", strictjson.Into(&p.HighFreqFactor, r.Float)),
		strictjson.May("original_max_position_embeddings", r.OrNull(readInt(r, &p.OriginalContext))),
		strictjson.May("partial_rotary_factor", r.OrNull(wholeRotation(r))),
		strictjson.May("factors", func() error {
			p.Factors = slices.Grow(p.Factors, r.Room(2))
			return r.Array(func(int) error {
				f, err := r.Float()
				p.Factors = append(p.Factors, f)
				return err
			})
		}),
	}
	first := r.Copy()
	err := first.Object(func(key string) error {
		if !slices.ContainsFunc(fields, func(f strictjson.Field) bool { return f.Key == key }) {
			other = key
		}
		return first.Skip()
	})
	if err != nil {
		return err
	}
	if err := r.Fields(fields...); err != nil {
		return err
	}
	switch p.Type {
	case "":
		if p.Factor != 0 {
			return fmt.Errorf("factor without rope_type: %w", ErrUnsupported)
		}
	case ropeDefault, ropeLinear, ropeLlama3, ropeFactors:
	default:
		return fmt.Errorf("rope_type is %.80q, want %q, %q or %q: %w", p.Type, ropeDefault, ropeLinear, ropeLlama3,
			ErrUnsupported)
	}
	if other != "" {
		return fmt.Errorf("%.80q is not run: %w", other, ErrUnsupported)
	}
	if p.Type == ropeDefault || p.Type == "" {
		*p = RopeScaling{}
	}
	return nil
}

// wholeRotation refuses the rotation of a part of the head.
func wholeRotation(r *strictjson.Reader) func() error {
	return func() error {
		part, err := r.Float()
		if err == nil && part != 1 {
			err = fmt.Errorf("%g, want 1: %w", part, ErrUnsupported)
		}
		return err
	}
}

// readTheta reads a RoPE base that may be said in two places, but not differently.
func readTheta(r *strictjson.Reader, theta *float64) func() error {
	return func() error {
		var value float64
		if err := strictjson.Into(&value, r.Float)(); err != nil {
			return err
		}
		if value < 0 || *theta >= 0 && *theta != value {
			return fmt.Errorf("rope_theta is %g here, %g elsewhere: %w", value, *theta, ErrCorrupt)
		}
		*theta = value
		return nil
	}
}

// mustBe reads one of a few names.
func mustBe(r *strictjson.Reader, want ...string) func() error {
	return func() error {
		value, err := r.String()
		if err == nil && !slices.Contains(want, value) {
			err = fmt.Errorf("%.80q, want %q: %w", value, want[0], ErrUnsupported)
		}
		return err
	}
}

func mustBeFalse(r *strictjson.Reader) func() error {
	return func() error {
		value, err := r.Bool()
		if err == nil && value {
			err = fmt.Errorf("true, want false: %w", ErrUnsupported)
		}
		return err
	}
}

// marshalFlat writes what readFlat reads, and other programs with it.
func (c Config) marshalFlat(bos *int) ([]byte, error) {
	s, kind := c.Transformer, flatKinds[c.ModelType]
	type windows struct {
		SlidingWindow *int     `json:"sliding_window"`
		LayerTypes    []string `json:"layer_types,omitempty"`
		Use           *bool    `json:"use_sliding_window,omitempty"`
	}
	var w *windows // not of a llama
	if kind.windows != noWindows {
		w = &windows{}
		for n := range s.Layers {
			layer := layerFull
			if size := s.window(n); size > 0 {
				layer, w.SlidingWindow = layerSliding, &size
			}
			if s.Windows != nil {
				w.LayerTypes = append(w.LayerTypes, layer)
			}
		}
		if use := w.SlidingWindow != nil; kind.switched() {
			w.Use = &use
		}
	}
	var ropes []int
	if kind.ropes {
		ropes = slices.Repeat([]int{1}, s.Layers)
		for _, n := range s.NoRope {
			ropes[n] = 0
		}
	}
	return json.Marshal(struct {
		Architectures     []string     `json:"architectures"`
		ModelType         string       `json:"model_type"`
		VocabSize         int          `json:"vocab_size"`
		HiddenSize        int          `json:"hidden_size"`
		IntermediateSize  int          `json:"intermediate_size"`
		Layers            int          `json:"num_hidden_layers"`
		Heads             int          `json:"num_attention_heads"`
		KVHeads           int          `json:"num_key_value_heads"`
		HeadDim           int          `json:"head_dim"`
		HiddenAct         string       `json:"hidden_act"`
		RMSNormEps        float64      `json:"rms_norm_eps"`
		RopeTheta         float64      `json:"rope_theta"`
		RopeScaling       *RopeScaling `json:"rope_scaling,omitempty"`
		NoRopeLayers      []int        `json:"no_rope_layers,omitempty"`
		TieWordEmbeddings bool         `json:"tie_word_embeddings"`
		AttentionBias     bool         `json:"attention_bias"`
		MLPBias           bool         `json:"mlp_bias"`
		BOSTokenID        *int         `json:"bos_token_id"` // null, because Hugging Face takes absence for 1
		EOSTokenIDs       []int        `json:"eos_token_id"`
		*windows
	}{
		[]string{kind.architecture}, c.ModelType,
		c.VocabSize, s.HiddenSize, s.IntermediateSize, s.Layers, s.Heads, s.KVHeads, s.HeadDim,
		"silu", c.RMSNormEps, s.RopeTheta, s.RopeScaling.orNil(), ropes, c.TieWordEmbeddings, s.QKVBias, s.MLPBias,
		bos, c.EOSTokenIDs, w,
	})
}
