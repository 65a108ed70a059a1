//go:build goexperiment.simd && go1.27 && !purego

package photon

import (
	"math"
	"simd/archsimd"
)

// The kernels of WebAssembly's SIMD, four f32x4 at a time: GOEXPERIMENT=simd go build, with Go 1.27 or newer. They give
// the bits of their references, whose products and sums each round as these do.

// simd chooses them. Browsers have had them since 2021 (Safari 2023).
var simd = true

func kernelTiers() []string { return []string{"simd128", "generic"} }
func useKernel(name string) { simd = name == "simd128" }
func kernelName() string    { return currentKernel }

func multipliesPairs() bool               { return false }
func (w *matrix) rowPanels() int          { return 1 }
func tileRows() int                       { return 4 }
func floatBlock(rows int) int             { return 128 }
func narrowRow(dst []uint16, x []float32) { narrowRowGeneric(dst, x) }
func roundRow(dst, x []float32)           { roundRowGeneric(dst, x) }

func mulRowBF16(dst, x []float32, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}
func mulRowPairs(dst []float32, x, w, v []uint16, add bool) {
	panic("photon: no kernel takes two panels here")
}
func mulBlockPairs(dst []float32, stride int, x []uint16, xStride, rows int, w []uint16, add bool) {
	panic("photon: no kernel multiplies pairs here")
}

type (
	f32x4 = archsimd.Float32x4
	u32x4 = archsimd.Uint32x4
)

// load4 checks no bound where x is a part of an array between constants.
func at4(x *[4]float32) f32x4     { return archsimd.LoadFloat32x4Array(x) }
func load4(x []float32) f32x4     { return at4((*[4]float32)(x)) }
func all4(v float32) f32x4        { return archsimd.BroadcastFloat32x4(v) }
func store4(x []float32, v f32x4) { v.StoreArray((*[4]float32)(x)) }

// mulBlockF32 is mulBlockF32Generic: attention's sums have its shape.
func mulBlockF32(dst []float32, stride int, x []float32, xStride, rows int, w []float32, add bool) {
	mixF32(dst, x, w, &mixShape{queries: rows, stride: stride, pStride: xStride, steps: len(w) / panelWidth,
		step: panelWidth, lanes: panelWidth, begin: !add})
}

// mixF32 is mixF32Generic: tiles of four queries and eight lanes, then of one query and 32 or four lanes.
func mixF32(dst, p, w []float32, m *mixShape) {
	if !simd {
		mixF32Generic(dst, p, w, m)
		return
	}
	for at := 0; at < m.lanes; {
		rows := w[at/keyPanel*m.panel+at%keyPanel:]
		i, n := 0, 4
		switch left := m.lanes - at; {
		case left >= 32 && m.queries < 4:
			n = 32
			for ; i < m.queries; i++ {
				mix1x32(dst[i*m.stride+at:], p[i*m.pStride:][:m.steps], rows, m)
			}
		case left >= 8:
			n = 8
			for ; i+4 <= m.queries; i += 4 {
				mix4x8(dst[i*m.stride+at:], p[i*m.pStride:], rows, m)
			}
			for ; i < m.queries; i++ {
				mix1x4(dst[i*m.stride+at:], p[i*m.pStride:][:m.steps], rows, m)
				mix1x4(dst[i*m.stride+at+4:], p[i*m.pStride:][:m.steps], rows[4:], m)
			}
		case left >= 4:
			for ; i < m.queries; i++ {
				mix1x4(dst[i*m.stride+at:], p[i*m.pStride:][:m.steps], rows, m)
			}
		default:
			part := *m
			part.lanes = left
			mixF32Generic(dst[at:], p, rows, &part)
		}
		at += n
	}
}

func mix1x4(dst, p, rows []float32, m *mixShape) {
	var a f32x4
	if !m.begin {
		a = load4(dst)
	}
	for s, v := range p {
		a = a.Add(all4(v).Mul(load4(rows[s*m.step:])))
	}
	store4(dst, a)
}

func mix1x32(dst, p, rows []float32, m *mixShape) {
	var a0, a1, a2, a3, a4, a5, a6, a7 f32x4
	o := (*[32]float32)(dst)
	if !m.begin {
		a0, a1, a2, a3 = load4(o[0:]), load4(o[4:]), load4(o[8:]), load4(o[12:])
		a4, a5, a6, a7 = load4(o[16:]), load4(o[20:]), load4(o[24:]), load4(o[28:])
	}
	for s, v := range p {
		w, v := (*[32]float32)(rows[s*m.step:]), all4(v)
		a0 = a0.Add(v.Mul(load4(w[0:])))
		a1 = a1.Add(v.Mul(load4(w[4:])))
		a2 = a2.Add(v.Mul(load4(w[8:])))
		a3 = a3.Add(v.Mul(load4(w[12:])))
		a4 = a4.Add(v.Mul(load4(w[16:])))
		a5 = a5.Add(v.Mul(load4(w[20:])))
		a6 = a6.Add(v.Mul(load4(w[24:])))
		a7 = a7.Add(v.Mul(load4(w[28:])))
	}
	store4(o[0:], a0)
	store4(o[4:], a1)
	store4(o[8:], a2)
	store4(o[12:], a3)
	store4(o[16:], a4)
	store4(o[20:], a5)
	store4(o[24:], a6)
	store4(o[28:], a7)
}

func mix4x8(dst, p, rows []float32, m *mixShape) {
	var a0, a1, b0, b1, c0, c1, d0, d1 f32x4
	a, b, c, d := dst[:8], dst[m.stride:][:8], dst[2*m.stride:][:8], dst[3*m.stride:][:8]
	if !m.begin {
		a0, a1, b0, b1 = load4(a), load4(a[4:]), load4(b), load4(b[4:])
		c0, c1, d0, d1 = load4(c), load4(c[4:]), load4(d), load4(d[4:])
	}
	pa, pb, pc, pd := p[:m.steps], p[m.pStride:][:m.steps], p[2*m.pStride:][:m.steps], p[3*m.pStride:][:m.steps]
	for s := range pa {
		w := (*[8]float32)(rows[s*m.step:])
		w0, w1 := load4(w[0:]), load4(w[4:])
		v := all4(pa[s])
		a0, a1 = a0.Add(v.Mul(w0)), a1.Add(v.Mul(w1))
		v = all4(pb[s])
		b0, b1 = b0.Add(v.Mul(w0)), b1.Add(v.Mul(w1))
		v = all4(pc[s])
		c0, c1 = c0.Add(v.Mul(w0)), c1.Add(v.Mul(w1))
		v = all4(pd[s])
		d0, d1 = d0.Add(v.Mul(w0)), d1.Add(v.Mul(w1))
	}
	store4(a, a0)
	store4(a[4:], a1)
	store4(b, b0)
	store4(b[4:], b1)
	store4(c, c0)
	store4(c[4:], c1)
	store4(d, d0)
	store4(d[4:], d1)
}

func mixF16(dst, p []float32, w []uint16, m *mixShape) { mixWidened(dst, p, w, m, false) }
func mixInt8(dst, p []float32, w []int8, m *mixShape)  { mixWidened(dst, p, w, m, false) }

// mulBlockBF16 is mulBlockBF16Generic.
func mulBlockBF16(dst []float32, stride int, x []float32, xStride, rows int, w []uint16, add bool) {
	if !simd {
		mulBlockBF16Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	odd := archsimd.BroadcastUint32x4(0xffff0000)
	for r := range rows {
		row, out := x[r*xStride:][:len(w)/panelWidth], dst[r*stride:][:panelWidth]
		for j := 0; j < panelWidth; j += 16 {
			o := (*[16]float32)(out[j:])
			var a0, a1, a2, a3 f32x4
			if add {
				a0, a1, a2, a3 = load4(o[0:]), load4(o[4:]), load4(o[8:]), load4(o[12:])
			}
			for k := 0; k+2 <= len(row); k += 2 {
				q := (*[32]uint16)(w[k*panelWidth+2*j:])
				u, v := all4(row[k]), all4(row[k+1])
				p0, p1, p2, p3 := pairs4(q[0:]), pairs4(q[8:]), pairs4(q[16:]), pairs4(q[24:])
				a0 = a0.Add(u.Mul(p0.ShiftAllLeft(16).BitsToFloat32())).Add(v.Mul(p0.And(odd).BitsToFloat32()))
				a1 = a1.Add(u.Mul(p1.ShiftAllLeft(16).BitsToFloat32())).Add(v.Mul(p1.And(odd).BitsToFloat32()))
				a2 = a2.Add(u.Mul(p2.ShiftAllLeft(16).BitsToFloat32())).Add(v.Mul(p2.And(odd).BitsToFloat32()))
				a3 = a3.Add(u.Mul(p3.ShiftAllLeft(16).BitsToFloat32())).Add(v.Mul(p3.And(odd).BitsToFloat32()))
			}
			store4(o[0:], a0)
			store4(o[4:], a1)
			store4(o[8:], a2)
			store4(o[12:], a3)
		}
	}
}

func pairs4(q []uint16) u32x4 { return archsimd.LoadUint16x8Array((*[8]uint16)(q)).ReshapeToUint32s() }

// The bytes of four outputs by four inputs, turned so that the outputs of one input stand side by side; and four
// inputs, each as often as there are outputs.
var (
	turned = archsimd.LoadInt8x16Array(&[16]int8{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15})
	fourth = archsimd.LoadInt8x16Array(&[16]int8{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3})
)

// spread is the integers of a group of activations, each four times.
type spread [groupSize / 4][16]int8

func (s *spread) of(a *quantGroup) {
	for half := range 2 {
		q := archsimd.LoadInt8x16Array((*[16]int8)(a.q[16*half:]))
		for i := range int8(4) {
			q.LookupOrZero(fourth.Add(archsimd.BroadcastInt8x16(4 * i))).StoreArray(&s[4*half+int(i)])
		}
	}
}

// scales4 is the scales of outputs j to j+3 of a group, times that of the activations.
func scales4(group []byte, j int, a *quantGroup) f32x4 {
	eight := archsimd.LoadUint8x16Array((*[16]uint8)(group[2*j:])).ReshapeToUint16s() // of which four are wanted
	return eight.ExtendLo4ToUint32().ShiftAllLeft(16).BitsToFloat32().Mul(all4(a.scale))
}

// mulBlockInt8 is mulBlockInt8Generic. Weights are at most 128 in magnitude once their offset is gone, activations 127,
// so that two products fit 16 bits.
func mulBlockInt8(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	if !simd {
		mulBlockInt8Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	var s spread
	offset := archsimd.BroadcastUint8x16(128)
	for r := range rows {
		out := dst[r*stride:][:panelWidth]
		if !add {
			clear(out)
		}
		for g, rest := 0, w; len(rest) >= int8Group; g, rest = g+1, rest[int8Group:] {
			a, group := &x[r*xStride+g], rest[:int8Group]
			s.of(a)
			for j := 0; j < panelWidth; j += 4 {
				var sum archsimd.Int32x4
				held := (*[groupSize*panelWidth - 112]byte)(group[2*panelWidth+4*j:])
				for i := range s {
					u := archsimd.LoadUint8x16Array((*[16]uint8)(held[i*4*panelWidth:])).Xor(offset).BitsToInt8().LookupOrZero(turned)
					v := archsimd.LoadInt8x16Array(&s[i])
					two := u.MulWidenLo(v).Add(u.MulWidenHi(v))
					sum = sum.Add(two.ExtendLo4ToInt32()).Add(two.ExtendHi4ToInt32())
				}
				store4(out[j:], load4(out[j:]).Add(sum.ConvertToFloat32().Mul(scales4(group, j, a))))
			}
		}
	}
}

// mulBlockInt4 is mulBlockInt4Generic. Weights are 0 to 15 here, so that the 16 products of a lane fit 16 bits.
func mulBlockInt4(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	if !simd {
		mulBlockInt4Generic(dst, stride, x, xStride, rows, w, add)
		return
	}
	var s spread
	low := archsimd.BroadcastUint8x16(15)
	for r := range rows {
		out := dst[r*stride:][:panelWidth]
		if !add {
			clear(out)
		}
		for g, rest := 0, w; len(rest) >= int4Group; g, rest = g+1, rest[int4Group:] {
			a, group := &x[r*xStride+g], rest[:int4Group]
			s.of(a)
			for j := 0; j < panelWidth; j += 4 {
				var sum archsimd.Int16x8
				held := (*[groupSize/2*panelWidth - 112]byte)(group[2*panelWidth+4*j:])
				for i := range len(s) / 2 {
					u := archsimd.LoadUint8x16Array((*[16]uint8)(held[i*4*panelWidth:])).BitsToInt8().LookupOrZero(turned).ToBits()
					v, n := archsimd.LoadInt8x16Array(&s[i]), u.And(low).BitsToInt8()
					sum = sum.Add(n.MulWidenLo(v)).Add(n.MulWidenHi(v))
					v, n = archsimd.LoadInt8x16Array(&s[len(s)/2+i]), u.ShiftAllRight(4).BitsToInt8()
					sum = sum.Add(n.MulWidenLo(v)).Add(n.MulWidenHi(v))
				}
				whole := archsimd.BroadcastInt32x4(a.bias).Add(sum.ExtendLo4ToInt32()).Add(sum.ExtendHi4ToInt32())
				store4(out[j:], load4(out[j:]).Add(whole.ConvertToFloat32().Mul(scales4(group, j, a))))
			}
		}
	}
}

// quantizeRow is quantizeRowGeneric.
func quantizeRow(dst []quantGroup, x []float32, offset int32) {
	whole := len(x) / groupSize
	if !simd {
		whole = 0
	}
	for g := range dst[:whole] {
		values, d := (*[groupSize]float32)(x[g*groupSize:]), &dst[g]
		amax := magnitude(values[:])
		if !(amax <= math.MaxFloat32) || amax < tinyAmax {
			quantizeRowGeneric(dst[g:g+1], values[:], offset)
			continue
		}
		d.scale = amax / 127
		d.bias = offset * round32(&d.q, values, 127/amax)
	}
	quantizeRowGeneric(dst[whole:], x[whole*groupSize:], offset)
}

// round32 is q = x·inverse, rounded, and their sum.
func round32(q *[groupSize]int8, x *[groupSize]float32, inverse float32) (sum int32) {
	var n [groupSize]int32
	var sums archsimd.Int32x4
	by, round := all4(inverse), all4(0x1.8p23)
	less := archsimd.BroadcastInt32x4(0x4b400000)
	for i := 0; i < groupSize; i += 4 {
		v := load4(x[i:]).Mul(by).Add(round).ToBits().BitsToInt32().Sub(less)
		v.StoreArray((*[4]int32)(n[i:]))
		sums = sums.Add(v)
	}
	for i, v := range n {
		q[i] = int8(v)
	}
	return sums.GetElem(0) + sums.GetElem(1) + sums.GetElem(2) + sums.GetElem(3)
}

// exp4 is exp32 of four.
func exp4(x f32x4) f32x4 {
	lowest := all4(expLowest)
	below := x.Less(lowest)
	y := lowest.IfElse(below, x)
	t := y.Mul(all4(expLog2E)).Add(all4(expRound))
	n := t.Sub(all4(expRound))
	r := y.Sub(n.Mul(all4(expLn2Hi)))
	r = r.Sub(n.Mul(all4(expLn2Lo)))
	square := r.Mul(r)
	a := all4(expC3).Mul(r).Add(all4(expC2))
	b := all4(expC5).Mul(r).Add(all4(expC4))
	b = all4(expC6).Mul(square).Add(b)
	p := b.Mul(square).Add(a)
	p = p.Mul(square).Add(r)
	p = p.Add(all4(1))
	power := t.ToBits().ShiftAllLeft(23).Add(all4(1).ToBits()).BitsToFloat32()
	return f32x4{}.IfElse(below, p.Mul(power))
}

func mulSilu(dst, gate, up []float32) {
	i := 0
	if simd {
		sign, one := all4(float32(math.Copysign(0, -1))).ToBits(), all4(1)
		for ; i+4 <= len(gate); i += 4 {
			g := load4(gate[i:])
			e := exp4(g.ToBits().Or(sign).BitsToFloat32())
			negative := g.ToBits().And(sign).Equal(sign)
			store4(dst[i:], g.Mul(e).IfElse(negative, g).Div(one.Add(e)).Mul(load4(up[i:])))
		}
	}
	mulSiluGeneric(dst[i:len(gate)], gate[i:], up[i:len(gate)])
}

func expSum(x []float32, top float32, s *lanes) {
	i := 0
	if simd {
		most := all4(top)
		s0, s1 := load4(s[:]), load4(s[4:])
		for ; i+8 <= len(x); i += 8 {
			e, f := exp4(load4(x[i:]).Sub(most)), exp4(load4(x[i+4:]).Sub(most))
			store4(x[i:], e)
			store4(x[i+4:], f)
			s0, s1 = s0.Add(e), s1.Add(f)
		}
		store4(s[:], s0)
		store4(s[4:], s1)
	}
	expSumGeneric(x[i:], top, s)
}

func sumSquares(x []float32, s *lanes) {
	i := 0
	if simd {
		s0, s1 := load4(s[:]), load4(s[4:])
		for ; i+8 <= len(x); i += 8 {
			a, b := load4(x[i:]), load4(x[i+4:])
			s0, s1 = s0.Add(a.Mul(a)), s1.Add(b.Mul(b))
		}
		store4(s[:], s0)
		store4(s[4:], s1)
	}
	sumSquaresGeneric(x[i:], s)
}

func mulScaled(dst, x, weight []float32, scale float32) {
	i := 0
	if simd {
		for by := all4(scale); i+4 <= len(x); i += 4 {
			store4(dst[i:], load4(x[i:]).Mul(by).Mul(load4(weight[i:])))
		}
	}
	mulScaledGeneric(dst[i:len(x)], x[i:], weight[i:len(x)], scale)
}

func addTo(dst, x []float32) {
	i := 0
	if simd {
		for ; i+4 <= len(x); i += 4 {
			store4(dst[i:], load4(dst[i:]).Add(load4(x[i:])))
		}
	}
	addToGeneric(dst[i:len(x)], x[i:])
}

func mulBy(dst, x []float32) {
	i := 0
	if simd {
		for ; i+4 <= len(x); i += 4 {
			store4(dst[i:], load4(dst[i:]).Mul(load4(x[i:])))
		}
	}
	mulByGeneric(dst[i:len(x)], x[i:])
}

func scale(dst, x []float32, a float32) {
	i := 0
	if simd {
		for by := all4(a); i+4 <= len(x); i += 4 {
			store4(dst[i:], load4(x[i:]).Mul(by))
		}
	}
	scaleGeneric(dst[i:len(x)], x[i:], a)
}

func rotatePairs(a, b, cos, sin []float32) {
	i, n := 0, len(a)
	if simd {
		for ; i+4 <= n; i += 4 {
			u, v, c, s := load4(a[i:]), load4(b[i:]), load4(cos[i:]), load4(sin[i:])
			store4(a[i:], u.Mul(c).Sub(v.Mul(s)))
			store4(b[i:], v.Mul(c).Add(u.Mul(s)))
		}
	}
	rotatePairsGeneric(a[i:], b[i:n], cos[i:n], sin[i:n])
}

func magnitude(x []float32) float32 {
	i := 0
	var most u32x4
	if simd {
		for ; i+4 <= len(x); i += 4 {
			most = most.Max(load4(x[i:]).Abs().ToBits())
		}
	}
	rest := math.Float32bits(magnitudeGeneric(x[i:]))
	return math.Float32frombits(max(rest, most.GetElem(0), most.GetElem(1), most.GetElem(2), most.GetElem(3)))
}

func maximum(x []float32) float32 {
	i := 0
	top := all4(float32(math.Inf(-1)))
	if simd {
		for ; i+4 <= len(x); i += 4 {
			top = top.Max(load4(x[i:]))
		}
	}
	return max(maximumGeneric(x[i:]), top.GetElem(0), top.GetElem(1), top.GetElem(2), top.GetElem(3))
}

func narrowF16(dst []uint16, x []float32)                 { narrowF16Generic(dst, x) }
func narrowInt8(dst []int8, x []float32, inverse float32) { narrowInt8Generic(dst, x, inverse) }
