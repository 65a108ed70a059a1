package photon

// WeightType is how the matrices of a model are held in memory.
type WeightType int

const (
	AsStored WeightType = iota // as the file has them: F32, F16 (held as F32), BF16, Int8 (held as F32, exact)
	F32                        // 4 bytes a weight
	BF16                       // 2 bytes a weight
	Int8                       // 1.06 bytes a weight: groups of 32 along the input share a scale
	Int4                       // 0.56 bytes a weight: groups of 32 along the input share a scale
)

func (t WeightType) String() string {
	return [...]string{"as stored", "f32", "bf16", "int8", "int4"}[t]
}

// panelWidth is the number of outputs that a kernel computes side by side.
const panelWidth = 32

// matrix is a weight W [out×in], packed once into panels of panelWidth outputs that the kernels walk along the input:
//
//	f32:  panels [ceil(out/32)][in][32]
//	bf16: panels [ceil(out/32)][ceil(in/2)][32][2]
//
// What is missing in the last panel or pair is zero. Every output element is accumulated over the input in one fixed order,
// whatever the number of rows: a row's bits do not depend on its company.
type matrix struct {
	out, in int
	form    WeightType
	f32     []float32
	bf16    []uint16
}

func newMatrix(out, in int, form WeightType) *matrix {
	w := &matrix{out: out, in: in, form: form}
	w.alloc()
	return w
}

// alloc makes the arrays of a matrix whose shape and form are set, unless they are there.
func (w *matrix) alloc() {
	if w.f32 != nil || w.bf16 != nil {
		return
	}
	switch w.form {
	case F32:
		w.f32 = make([]float32, w.panels()*w.in*panelWidth)
	case BF16:
		w.bf16 = make([]uint16, w.panels()*w.pairs()*2*panelWidth)
	default:
		panic("photon: no such matrix form: " + w.form.String())
	}
}

// bytes is what the arrays take.
func (w *matrix) bytes() int64 {
	size := int64(4)
	if w.form == BF16 {
		size = 2
	}
	return size * int64(w.panels()) * int64(w.in) * panelWidth
}

func (w *matrix) panels() int { return (w.out + panelWidth - 1) / panelWidth }
func (w *matrix) pairs() int  { return (w.in + 1) / 2 }

// setRows packs rows first, first+1, … of W from values [n×in].
func (w *matrix) setRows(first int, values []float32) {
	for i := range len(values) / w.in {
		row := values[i*w.in:][:w.in]
		panel, lane := (first+i)/panelWidth, (first+i)%panelWidth
		switch w.form {
		case F32:
			p := w.f32[panel*w.in*panelWidth:]
			for k, v := range row {
				p[k*panelWidth+lane] = v
			}
		case BF16:
			p := w.bf16[panel*w.pairs()*2*panelWidth:]
			for k, v := range row {
				p[(k/2*panelWidth+lane)*2+k%2] = f32ToBF16(v)
			}
		}
	}
}

// mul computes dst [rows×out] = x [rows×in] · Wᵀ.
func (w *matrix) mul(c *crew, t *mulTask, dst, x []float32, rows int) {
	if len(x) < rows*w.in || len(dst) < rows*w.out {
		panic("photon: matrix product: slice too short")
	}
	*t = mulTask{w: w, dst: dst, x: x, rows: rows}
	t.panelsPerPart = max(1, w.panels()/(4*c.workers))
	if rows*w.out*w.in < 1<<16 {
		t.panelsPerPart = w.panels()
	}
	parts := (w.panels() + t.panelsPerPart - 1) / t.panelsPerPart
	c.run(t, parts)
	*t = mulTask{}
}

// mulTask is one product; its parts are ranges of panels.
type mulTask struct {
	w             *matrix
	dst, x        []float32
	rows          int
	panelsPerPart int
}

func (t *mulTask) part(i int) {
	first := i * t.panelsPerPart
	for p := first; p < min(first+t.panelsPerPart, t.w.panels()); p++ {
		t.w.mulPanel(t.dst, t.x, t.rows, p)
	}
}

// mulPanel computes the outputs of panel p for all rows.
func (w *matrix) mulPanel(dst, x []float32, rows, p int) {
	lanes := min(panelWidth, w.out-p*panelWidth)
	switch w.form {
	case F32:
		mulPanelF32(dst[p*panelWidth:], w.out, x, w.in, rows, w.f32[p*w.in*panelWidth:][:w.in*panelWidth], lanes)
	case BF16:
		wide := w.pairs() * 2 * panelWidth
		mulPanelBF16(dst[p*panelWidth:], w.out, x, w.in, rows, w.bf16[p*wide:][:wide], lanes)
	}
}

// kernelName names the tier that was chosen.
func kernelName() string { return "generic" }
