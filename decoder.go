package photon

// decoder is one level of the top-down path (paper §3.2): a converter that turns the condition of a unit into rows,
// and a context decoder G_l. Its rows are numbered through the whole text; child u of the level below is predicted at
// row(u).
//
// With a prefix of R rows those of a unit are [prefix (R) ; content (C)]. Without one (added) they are C: each holds
// the child before the one it predicts, and its part of the condition is added to that. The flat model is a decoder
// whose units are single tokens without a condition: R = 0, C = 1, and token u is predicted at row u-1.
type decoder struct {
	chunk, prefix int       // C_l, R_l
	added         bool      // the condition is
	local         bool      // every unit is a sequence of its own
	converter     *matrix   // [R·W × D_l], or [C·W × D_l]
	bias          []float32 // [R·W], or [C·W]
	stack         *stack
}

func (d *decoder) width() int { return d.stack.cfg.HiddenSize }
func (d *decoder) unit() int  { return d.prefix + d.chunk }

// lead is the number of a unit's rows until its first child is predicted.
func (d *decoder) lead() int {
	if d.added {
		return 1
	}
	return d.prefix
}

// slices is the number of rows that the converter makes of a condition.
func (d *decoder) slices() int {
	if d.added {
		return d.chunk
	}
	return d.prefix
}

// row is where child u is predicted.
func (d *decoder) row(u int) int { return u/d.chunk*d.unit() + d.lead() - 1 + u%d.chunk }

// child is whose content a row holds; it is in the unit before, or -1, only where conditions are added.
func (d *decoder) child(row int) int { return row/d.unit()*d.chunk + row%d.unit() - d.lead() }

// before is the number of children before what a row predicts; a prefix row is taken to predict its unit.
func (d *decoder) before(row int) int {
	return row/d.unit()*d.chunk + max(0, row%d.unit()-d.lead()+1)
}

// unused tells of a row that no other sees and that predicts nothing: the last one of a unit that is a sequence of its own.
func (d *decoder) unused(row int) bool { return d.skips() && row%d.unit() == d.unit()-1 }

func (d *decoder) skips() bool { return d.local && !d.added }

// firstRow is the earliest row that the prediction of child u depends on, at the beginning of a unit. Each layer of a stream looks
// back window-1 rows further.
func (d *decoder) firstRow(u int) int {
	if d.local {
		return u / d.chunk * d.unit()
	}
	row := max(0, d.row(u)-d.stack.reach[0])
	return row - row%d.unit()
}

// seesAll tells of a decoder of which no row can ever be left out.
func (d *decoder) seesAll() bool { return !d.local && d.stack.cfg.unbounded() }

// seesAll tells of a model with a decoder of which no row can ever be left out.
func (m *Model) seesAll() bool {
	for _, d := range m.decoders {
		if d.seesAll() {
			return true
		}
	}
	return false
}

// convert turns conditions [units × D_l] into rows [units × R·W], or [units × C·W].
func (d *decoder) convert(ws *workspace, conds []float32) []float32 {
	if len(conds) == 0 {
		return nil
	}
	units := len(conds) / d.converter.in
	ws.prefixes = grow(ws.prefixes, units*d.converter.out)
	d.converter.mul(&ws.crew, &ws.mulTask, ws.prefixes, conds, units)
	addBias(ws.prefixes, d.bias, units)
	return ws.prefixes
}
