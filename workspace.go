package photon

// workspace is the scratch of one call: the crew and every buffer that a step needs. A model keeps those that are idle, so
// that a warm call allocates nothing.
type workspace struct {
	crew      crew
	cacheType CacheType
	mulTask   mulTask
	rowTask   rowTask
	attention attentionTask

	// One step of a stack.
	stack         *stack
	segments      []segment
	rows          []rowPlace
	x             []float32 // [rows × d], the residual stream
	normWeight    []float32
	h             []float32 // [rows × d]
	qkv           []float32 // [rows × (heads+2·kvHeads)·headDim]
	mixed         []float32 // [rows × heads·headDim]
	gateUp, gated []float32 // [rows × 2f], [rows × f]
	cos, sin      []float32 // [rows × headDim/2]
	fresh         kvLayer   // [kvHeads][rows][headDim]

	schedule
	logits      []float32
	oneSequence [1]*sequence
	oneText     [1][]int
	oneID       [1]int
}

// rowPlace is where a row of a step stands.
type rowPlace struct {
	cache    *kvCache // what came before; nil: nothing
	start    int      // the first row of its segment in this step
	position int
	visible  int // rows that it sees, itself included
}

// rowTask runs a function over the rows of a step.
type rowTask struct {
	ws            *workspace
	do            func(ws *workspace, lo, hi int)
	rows, perPart int
}

func (t *rowTask) part(i int) { t.do(t.ws, i*t.perPart, min((i+1)*t.perPart, t.rows)) }

// eachRow calls do for all rows, in parts where they are worth it; cost is about the elements a row touches.
func (ws *workspace) eachRow(do func(ws *workspace, lo, hi int), rows, cost int) {
	t := &ws.rowTask
	*t = rowTask{ws: ws, do: do, rows: rows, perPart: rows}
	if rows*cost > 1<<15 {
		t.perPart = (rows + 4*ws.crew.workers - 1) / (4 * ws.crew.workers)
	}
	if rows > 0 {
		ws.crew.run(t, (rows+t.perPart-1)/t.perPart)
	}
}
