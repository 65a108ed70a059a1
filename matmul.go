package photon

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
)

// WeightType is how the matrices of a model are held in memory.
type WeightType int

const (
	// AsStored is as the file has them, activations float32: F32, F16 (held as F32), BF16, int8 (held as F32, exact). Of
	// a GGUF file Q8_0 is held as Int8 and Q4_0 as Int4, the integers as they are and the scales rounded from float16 to
	// bfloat16, and Q6_K as Int8; the activations are then rounded as with these.
	AsStored WeightType = iota

	F32  // 4 bytes a weight
	BF16 // 2 bytes a weight; activations are rounded to bfloat16 too
	Int8 // 1.06 bytes a weight: groups of 32 along the input share a scale; activations are rounded to int8 likewise
	Int4 // 0.56 bytes a weight: as Int8, with weights from -8 to 7

	// bf16Rounded is BF16 whose products round the activations to bfloat16 too, which is what VDPBF16PS and its like compute.
	// BF16 as a form of matrix keeps the activations float32.
	bf16Rounded
)

// String returns "as stored", "f32", "bf16", "int8" or "int4".
func (t WeightType) String() string {
	return nameOf("WeightType", int(t), "as stored", "f32", "bf16", "int8", "int4", "bf16 rounded")
}

// panelWidth is the number of outputs that a kernel computes side by side.
const panelWidth = 32

// matrix is a weight W [out×in], packed once into panels of panelWidth outputs that the kernels walk along the input:
//
//	f32:  panels [ceil(out/32)][in][32] float32
//	bf16: panels [ceil(out/32)][ceil(in/2)][32][2] bfloat16
//	int8: panels [ceil(out/32)][ceil(in/32)] of {scale [32] bfloat16, weight [8][32][4] uint8}: weight q of input 4s+i and
//	      output j, -127 … 127, is held as q+128 in [s][j][i]
//	int4: panels [ceil(out/32)][ceil(in/32)] of {scale [32] bfloat16, weight [4][32][4] uint8}: weight q, -8 … 7, is held
//	      as q+8; input 4s+i in the low half of [s][j][i], input 16+4s+i in its high half
//
// What is missing in the last pair, group or panel is zero. Every output element is accumulated over the input in one fixed
// order, whatever the number of rows, and what a kernel leaves in dst between two blocks of the input is float32, as its
// registers are: a row's bits do not depend on its company.
type matrix struct {
	out, in int
	form    WeightType
	f32     []float32
	bf16    []uint16
	quant   []byte
}

func newMatrix(out, in int, form WeightType) *matrix {
	w := &matrix{out: out, in: in, form: form}
	w.alloc()
	return w
}

// alloc makes the array of a matrix whose shape and form are set, unless it is there.
func (w *matrix) alloc() {
	if w.f32 != nil || w.bf16 != nil || w.quant != nil {
		return
	}
	switch w.form {
	case F32:
		w.f32 = make([]float32, w.bytes()/4)
	case BF16, bf16Rounded:
		w.bf16 = make([]uint16, w.bytes()/2)
	default:
		w.quant = make([]byte, w.bytes())
	}
}

// bytes is what the array takes.
func (w *matrix) bytes() int64 {
	panels := int64(w.panels())
	switch w.form {
	case F32:
		return panels * int64(w.in) * panelWidth * 4
	case BF16, bf16Rounded:
		return panels * int64(w.pairs()) * panelWidth * 4
	case Int8:
		return panels * int64(w.groups()) * int8Group
	case Int4:
		return panels * int64(w.groups()) * int4Group
	}
	panic("photon: no such matrix form: " + w.form.String())
}

func (w *matrix) panels() int { return (w.out + panelWidth - 1) / panelWidth }
func (w *matrix) pairs() int  { return (w.in + 1) / 2 }
func (w *matrix) groups() int { return (w.in + groupSize - 1) / groupSize }

// setRows packs rows first, first+1, … of W from values [n×in]. Calls for different rows may run at the same time.
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
		case BF16, bf16Rounded:
			p := w.bf16[panel*w.pairs()*2*panelWidth:]
			for k, v := range row {
				p[(k/2*panelWidth+lane)*2+k%2] = f32ToBF16(v)
			}
		case Int8:
			for g := range w.groups() {
				packInt8(w.quant[(panel*w.groups()+g)*int8Group:][:int8Group], lane, row[g*groupSize:min((g+1)*groupSize, w.in)])
			}
		case Int4:
			for g := range w.groups() {
				packInt4(w.quant[(panel*w.groups()+g)*int4Group:][:int4Group], lane, row[g*groupSize:min((g+1)*groupSize, w.in)])
			}
		}
	}
}

// holds tells of tensors whose integers the form holds as they are.
func (f WeightType) holds(d dtype) bool {
	return f == Int8 && d == dtypeQ8x0 || f == Int4 && (d == dtypeQ4x0 || d == dtypeI4)
}

// setRow packs row `to` of W from row `from` of a tensor that its form holds. The scales are rounded to bfloat16.
func (w *matrix) setRow(to int, t *tensorData, from int) {
	panel, lane := to/panelWidth, to%panelWidth
	for g := range w.groups() {
		at := from*w.groups() + g
		switch t.dtype {
		case dtypeQ8x0, dtypeQ4x0:
			size := t.dtype.size()
			block := t.data[at*size:][:size]
			scale := f16ToF32(binary.LittleEndian.Uint16(block))
			if w.form == Int8 {
				setGroup(w.quant[(panel*w.groups()+g)*int8Group:][:int8Group], lane, scale, block[2:], 128)
			} else {
				setGroup(w.quant[(panel*w.groups()+g)*int4Group:][:int4Group], lane, scale, block[2:], 0)
			}
		case dtypeI4:
			group := w.quant[(panel*w.groups()+g)*int4Group:][:int4Group]
			setGroup(group, lane, t.scales[at], t.data[at*groupSize/2:][:groupSize/2], 0)
		}
	}
}

// mulTask is one product. It belongs to the caller, who reuses it: once its scratch has grown, a product allocates nothing.
type mulTask struct {
	w         *matrix
	dst, x    []float32
	xStride   int
	rows      int
	preparing bool // the parts convert rows of x; otherwise they compute

	rowsPerPart, panelsPerPart, panelParts int
	outerK                                 int // inputs after which a part goes on to its next panel
	blockK                                 int // inputs of a panel that stay in the cache that the kernel wants them in while all rows use them

	source []float32    // x as the caller gave it
	padded []float32    // x [rows×even in], rounded to bfloat16 for bf16Rounded
	half   []uint16     // x [rows×even in] as bfloat16, for kernels that multiply pairs
	quant  []quantGroup // x [rows×groups]
	edge   []float32    // dst [rows×32] of the last panel when it is not full

	read int64 // bytes of weights in all products so far, each matrix once a product
}

const (
	minPart  = 1 << 16 // multiply-adds that are worth handing to another thread
	maxPart  = 1 << 21 // and those that need not be cut further: who is done first waits for the others' last parts
	mostRows = 12      // rows of the highest tile of a kernel
	maxRows  = 96      // rows of a part; with blockK it bounds the time in a kernel, some 35 µs, for a goroutine cannot be stopped there
	cachedX  = 1 << 18 // activations of a part that are used over and over, from the second-level cache
	longK    = 4096    // block of the input when there is one tile of rows only, which uses the weights once
	prepared = 1 << 14 // activations converted in one part
)

// mul computes dst [rows×out] = x [rows×in] · Wᵀ.
func (w *matrix) mul(c *crew, t *mulTask, dst, x []float32, rows int) {
	if len(x) < rows*w.in || len(dst) < rows*w.out {
		panic("photon: matrix product: slice too short")
	}
	if rows == 0 || w.out == 0 {
		return
	}
	t.w, t.dst, t.x, t.source, t.xStride, t.rows = w, dst, x, x, w.in, rows
	t.read += w.bytes()
	if t.needsPreparing() {
		t.rowsPerPart = max(1, prepared/w.in)
		t.preparing = true
		c.run(t, (rows+t.rowsPerPart-1)/t.rowsPerPart)
		t.preparing = false
	}
	if w.out%panelWidth != 0 {
		t.edge = grow(t.edge, rows*panelWidth)
	}
	c.run(t, t.split(c.workers))
	t.w, t.dst, t.x, t.source = nil, nil, nil, nil
}

// split plans the product and returns the number of its parts.
func (t *mulTask) split(workers int) int {
	w := t.w
	rowParts := (t.rows + maxRows - 1) / maxRows
	t.rowsPerPart = ((t.rows+rowParts-1)/rowParts + mostRows - 1) / mostRows * mostRows
	perPanel := t.rowsPerPart * w.in * panelWidth
	panelParts := max(1, (4*workers+rowParts-1)/rowParts)
	t.panelsPerPart = max(min((w.panels()+panelParts-1)/panelParts, maxPart/perPanel), (minPart+perPanel-1)/perPanel)
	if workers == 1 {
		t.panelsPerPart = w.panels()
	}
	t.panelParts = (w.panels() + t.panelsPerPart - 1) / t.panelsPerPart

	t.blockK = longK
	if t.rowsPerPart > tileRows() {
		switch w.form {
		case F32:
			t.blockK = floatBlock(min(t.rows, t.rowsPerPart))
		case BF16, bf16Rounded:
			t.blockK = max(256, floatBlock(min(t.rows, t.rowsPerPart)))
		case Int8, Int4:
			t.blockK = 512
		}
	}
	t.outerK = max(t.blockK, cachedX/t.rowsPerPart/t.blockK*t.blockK)
	return rowParts * t.panelParts
}

func (t *mulTask) part(i int) {
	if t.preparing {
		first := i * t.rowsPerPart
		t.prepare(first, min(first+t.rowsPerPart, t.rows))
		return
	}
	w := t.w
	firstRow := i / t.panelParts * t.rowsPerPart
	rows := min(t.rowsPerPart, t.rows-firstRow)
	firstPanel := i % t.panelParts * t.panelsPerPart
	lastPanel := min(firstPanel+t.panelsPerPart, w.panels())
	raceReadRows(t.source[firstRow*w.in:], w.in, w.in, rows)
	raceWriteRows(t.dst[firstRow*w.out+firstPanel*panelWidth:], w.out, min(lastPanel*panelWidth, w.out)-firstPanel*panelWidth, rows)
	for k0 := 0; k0 < w.in; k0 += t.outerK {
		k1 := min(k0+t.outerK, w.in)
		for p := firstPanel; p < lastPanel; p++ {
			dst, stride := t.dst[firstRow*w.out+p*panelWidth:], w.out
			lanes := w.out - p*panelWidth
			if rows == 1 && p+1 < lastPanel && lanes >= 2*panelWidth && w.rowPanels() == 2 {
				for k := k0; k < k1; k += t.blockK {
					t.rowBlock(dst, firstRow, p, k, min(k+t.blockK, k1))
				}
				p++
				continue
			}
			if lanes < panelWidth {
				dst, stride = t.edge[firstRow*panelWidth:], panelWidth
			}
			for k := k0; k < k1; k += t.blockK {
				t.block(dst, stride, firstRow, rows, p, k, min(k+t.blockK, k1))
			}
			if lanes < panelWidth && k1 == w.in {
				for r := range rows {
					copy(t.dst[(firstRow+r)*w.out+p*panelWidth:][:lanes], dst[r*panelWidth:])
				}
			}
		}
	}
}

// block adds inputs k … end-1 of panel p to the outputs of rows first … first+rows-1, or begins them when k is 0.
func (t *mulTask) block(dst []float32, stride, first, rows, p, k, end int) {
	w := t.w
	add := k > 0
	switch w.form {
	case F32:
		panel := w.f32[p*w.in*panelWidth:]
		mulBlockF32(dst, stride, t.x[first*t.xStride+k:], t.xStride, rows, panel[k*panelWidth:end*panelWidth], add)
	case BF16:
		panel := w.bf16[p*w.pairs()*2*panelWidth:]
		mulBlockBF16(dst, stride, t.x[first*t.xStride+k:], t.xStride, rows, panel[k*panelWidth:(end+1)/2*2*panelWidth], add)
	case bf16Rounded:
		panel := w.bf16[p*w.pairs()*2*panelWidth:][k*panelWidth : (end+1)/2*2*panelWidth]
		if multipliesPairs() {
			mulBlockPairs(dst, stride, t.half[first*t.xStride+k:], t.xStride, rows, panel, add)
		} else {
			mulBlockBF16(dst, stride, t.x[first*t.xStride+k:], t.xStride, rows, panel, add)
		}
	case Int8:
		g, n := k/groupSize, (end-k+groupSize-1)/groupSize
		panel := w.quant[(p*w.groups()+g)*int8Group:][:n*int8Group]
		mulBlockInt8(dst, stride, t.quant[first*w.groups()+g:], w.groups(), rows, panel, add)
	case Int4:
		g, n := k/groupSize, (end-k+groupSize-1)/groupSize
		panel := w.quant[(p*w.groups()+g)*int4Group:][:n*int4Group]
		mulBlockInt4(dst, stride, t.quant[first*w.groups()+g:], w.groups(), rows, panel, add)
	}
}

// rowBlock is block for one row and the two panels p and p+1 of a form whose rowPanels is 2.
func (t *mulTask) rowBlock(dst []float32, row, p, k, end int) {
	w := t.w
	panel := w.pairs() * 2 * panelWidth
	first := w.bf16[p*panel+k*panelWidth:][:(end-k+1)/2*2*panelWidth]
	second := w.bf16[(p+1)*panel+k*panelWidth:][:len(first)]
	if w.form == bf16Rounded && multipliesPairs() {
		mulRowPairs(dst, t.half[row*t.xStride+k:], first, second, k > 0)
	} else {
		mulRowBF16(dst, t.x[row*t.xStride+k:], first, second, k > 0)
	}
}

// needsPreparing says whether x must be converted first, and makes the room for it.
func (t *mulTask) needsPreparing() bool {
	w := t.w
	switch {
	case w.form == Int8 || w.form == Int4:
		t.quant = grow(t.quant, t.rows*w.groups())
	case w.form == bf16Rounded && multipliesPairs():
		t.xStride = 2 * w.pairs()
		t.half = grow(t.half, t.rows*t.xStride)
	case w.form == bf16Rounded, w.form == BF16 && w.in%2 != 0:
		t.xStride = 2 * w.pairs()
		t.padded = grow(t.padded, t.rows*t.xStride)
		t.x = t.padded
	default:
		return false
	}
	return true
}

// prepare converts rows first … end-1 of x.
func (t *mulTask) prepare(first, end int) {
	w := t.w
	for r := first; r < end; r++ {
		row := t.source[r*w.in:][:w.in]
		switch {
		case w.form == Int8:
			quantizeRow(t.quant[r*w.groups():][:w.groups()], row, -128)
		case w.form == Int4:
			quantizeRow(t.quant[r*w.groups():][:w.groups()], row, -8)
		case w.form == bf16Rounded && multipliesPairs():
			half := t.half[r*t.xStride:][:t.xStride]
			half[len(half)-1] = 0
			narrowRow(half[:w.in], row)
		default:
			padded := t.padded[r*t.xStride:][:t.xStride]
			padded[len(padded)-1] = 0
			if w.form == BF16 {
				copy(padded, row)
			} else {
				roundRow(padded[:w.in], row)
			}
		}
	}
}

// errKernel is what is wrong with PHOTON_KERNEL, which names the kernels to use instead of the best. Load reports it.
var errKernel = setKernel(os.Getenv("PHOTON_KERNEL"))

// currentKernel is the one of kernelTiers in use.
var currentKernel string

// setKernel selects one of kernelTiers, the best for "". It is no business of a running product.
func setKernel(name string) error {
	tiers := kernelTiers()
	if name == "" {
		name = tiers[0]
	}
	if !slices.Contains(tiers, name) {
		setKernel("")
		return fmt.Errorf("photon: PHOTON_KERNEL=%s: no such kernels on this machine: set one of %s, or nothing: %w",
			name, strings.Join(tiers, ", "), ErrInvalid)
	}
	currentKernel = name
	useKernel(name)
	return nil
}
