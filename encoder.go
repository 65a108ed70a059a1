package photon

// encoder is one level of the bottom-up path (paper §3.1): a chunker that makes one unit of every C rows below, and a context
// encoder E_l, causal over the units of the level.
type encoder struct {
	chunk int       // C_l
	below int       // width of a row below: D_(l-1), or d_e for tokens
	norm  []float32 // [C·below]; linear chunker only, as proj and bias
	proj  *matrix   // [D_l × C·below]
	bias  []float32 // [D_l]
	eps   float32
	stack *stack
}

func (e *encoder) width() int { return e.stack.cfg.HiddenSize }

// units turns the rows below, units·C of them one after another, into the encoder's input [units × D_l]. The rows are overwritten.
func (e *encoder) units(ws *workspace, dst, rows []float32, units int) {
	wide := e.chunk * e.below
	if e.proj == nil {
		copy(dst[:units*wide], rows)
		return
	}
	for u := range units {
		rmsNorm(rows[u*wide:][:wide], rows[u*wide:][:wide], e.norm, e.eps)
	}
	e.proj.mul(&ws.crew, &ws.mulTask, dst, rows, units)
	addBias(dst, e.bias, units)
}

func addBias(x, bias []float32, rows int) {
	for r := range rows {
		add(x[r*len(bias):][:len(bias)], bias)
	}
}
