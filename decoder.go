package photon

// decoder is one level of the top-down path (paper §3.2): a converter that turns the condition of a unit into R prefix rows, and a context decoder G_l over the rows
// [prefix (R) ; content (C)] of each unit. Its rows are numbered through the whole text, R+C a unit; child u of the level below is predicted at row(u).
//
// The flat model is a decoder whose units are single tokens without a prefix: R = 0, C = 1, and token u is predicted at row u-1.
type decoder struct {
	chunk, prefix int       // C_l, R_l
	local         bool      // every unit is a sequence of its own
	converter     *matrix   // [R·W × D_l]
	bias          []float32 // [R·W]
	stack         *stack
}

func (d *decoder) width() int { return d.stack.cfg.HiddenSize }
func (d *decoder) unit() int  { return d.prefix + d.chunk }

// row is where child u is predicted.
func (d *decoder) row(u int) int { return u/d.chunk*d.unit() + d.prefix - 1 + u%d.chunk }

// unused tells of a row that no other sees and that predicts nothing: the last one of a unit that is a sequence of its own.
func (d *decoder) unused(row int) bool { return d.local && row%d.unit() == d.unit()-1 }

// firstRow is the earliest row that the prediction of child u depends on, at the beginning of a unit. Each layer of a stream looks
// back window-1 rows further.
func (d *decoder) firstRow(u int) int {
	switch window := d.stack.cfg.SlidingWindow; {
	case d.local:
		return u / d.chunk * d.unit()
	case window > 0:
		row := max(0, d.row(u)-len(d.stack.layers)*(window-1))
		return row - row%d.unit()
	}
	return 0
}

// seesAll tells of a decoder of which no row can ever be left out.
func (d *decoder) seesAll() bool { return !d.local && d.stack.cfg.SlidingWindow == 0 }
