package photon

import (
	"encoding/binary"
	"math"
)

// The reference of every matrix kernel. A block is some inputs of one panel: for rows r and outputs j of the panel it computes
//
//	dst[r·stride+j] = (add ? dst[r·stride+j] : 0) + Σ_k x[r·xStride+k] · w[k, j]
//
// k ascending, one sum an output.

// mulBlockF32Generic is a block of w [k][32]: attention's sums have its shape.
func mulBlockF32Generic(dst []float32, stride int, x []float32, xStride, rows int, w []float32, add bool) {
	mixF32Generic(dst, x, w, &mixShape{queries: rows, stride: stride, pStride: xStride, steps: len(w) / panelWidth, step: panelWidth, lanes: panelWidth, begin: !add})
}

// mulBlockBF16Generic is a block of w [pairs][32][2]; the products are exact, the sums float32. x has an even number of inputs.
// It is also the reference of the kernels that multiply pairs of bfloat16: they may leave out the rounding between the two
// products of a pair and flush denormals.
func mulBlockBF16Generic(dst []float32, stride int, x []float32, xStride, rows int, w []uint16, add bool) {
	k := len(w) / panelWidth
	for r := range rows {
		row, out := x[r*xStride:][:k], dst[r*stride:][:panelWidth]
		if !add {
			clear(out)
		}
		for j := 0; j < panelWidth; j += 4 {
			o := out[j:][:4]
			a0, a1, a2, a3 := o[0], o[1], o[2], o[3]
			for k := 0; k < len(row); k += 2 {
				q := w[k*panelWidth+2*j:][:8]
				v0, v1 := row[k], row[k+1]
				a0 += v0 * bf16ToF32(q[0])
				a1 += v0 * bf16ToF32(q[2])
				a2 += v0 * bf16ToF32(q[4])
				a3 += v0 * bf16ToF32(q[6])
				a0 += v1 * bf16ToF32(q[1])
				a1 += v1 * bf16ToF32(q[3])
				a2 += v1 * bf16ToF32(q[5])
				a3 += v1 * bf16ToF32(q[7])
			}
			o[0], o[1], o[2], o[3] = a0, a1, a2, a3
		}
	}
}

// mulBlockInt8Generic is a block of int8 groups. For each group in turn it adds the exact integer sum times (weight scale ×
// activation scale): a product, a product and a sum, each rounded to float32. Every kernel gives these bits.
func mulBlockInt8Generic(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int8Group
	for r := range rows {
		out := dst[r*stride:][:panelWidth]
		if !add {
			clear(out)
		}
		for g, a := range x[r*xStride:][:groups] {
			scales, q := w[g*int8Group:][:2*panelWidth], w[g*int8Group+2*panelWidth:][:groupSize*panelWidth]
			for j := range out {
				sum := a.bias
				for s := range groupSize / 4 {
					v, u := a.q[4*s:][:4], q[(s*panelWidth+j)*4:][:4]
					sum += int32(v[0])*int32(u[0]) + int32(v[1])*int32(u[1]) + int32(v[2])*int32(u[2]) + int32(v[3])*int32(u[3])
				}
				scale := bf16ToF32(binary.LittleEndian.Uint16(scales[2*j:])) * a.scale
				out[j] += float32(float32(sum) * scale)
			}
		}
	}
}

// mulBlockInt4Generic is mulBlockInt8Generic for int4 groups.
func mulBlockInt4Generic(dst []float32, stride int, x []quantGroup, xStride, rows int, w []byte, add bool) {
	groups := len(w) / int4Group
	for r := range rows {
		out := dst[r*stride:][:panelWidth]
		if !add {
			clear(out)
		}
		for g, a := range x[r*xStride:][:groups] {
			scales, q := w[g*int4Group:][:2*panelWidth], w[g*int4Group+2*panelWidth:][:groupSize/2*panelWidth]
			for j := range out {
				sum := a.bias
				for s := range groupSize / 8 {
					lo, hi, u := a.q[4*s:][:4], a.q[16+4*s:][:4], q[(s*panelWidth+j)*4:][:4]
					sum += int32(lo[0])*int32(u[0]&15) + int32(lo[1])*int32(u[1]&15) + int32(lo[2])*int32(u[2]&15) + int32(lo[3])*int32(u[3]&15)
					sum += int32(hi[0])*int32(u[0]>>4) + int32(hi[1])*int32(u[1]>>4) + int32(hi[2])*int32(u[2]>>4) + int32(hi[3])*int32(u[3]>>4)
				}
				scale := bf16ToF32(binary.LittleEndian.Uint16(scales[2*j:])) * a.scale
				out[j] += float32(float32(sum) * scale)
			}
		}
	}
}

// quantizeRowGeneric rounds x [k] to groups of int8: scale = amax/127, q = x·(127/amax) to the nearest, ties to even.
// A group whose amax is below tinyAmax counts as zero; one that holds an infinity or NaN makes every output NaN.
// bias is offset·Σq: what turns a sum over weights held with an offset into the true one.
func quantizeRowGeneric(dst []quantGroup, x []float32, offset int32) {
	for g := range dst {
		values, d := x[g*groupSize:min((g+1)*groupSize, len(x))], &dst[g]
		*d = quantGroup{}
		amax := magnitudeGeneric(values)
		if !(amax <= math.MaxFloat32) {
			d.scale = float32(math.NaN())
			continue
		}
		if amax < tinyAmax {
			continue
		}
		d.scale = amax / 127
		inverse := 127 / amax
		for i, v := range values {
			q := roundToInt(float32(v * inverse))
			d.q[i] = int8(q)
			d.bias += offset * q
		}
	}
}

// roundRowGeneric rounds x to bfloat16, to nearest, ties to even.
func roundRowGeneric(dst, x []float32) {
	for i, v := range x {
		dst[i] = bf16ToF32(f32ToBF16(v))
	}
}

// narrowRowGeneric is roundRowGeneric that keeps the upper halves only.
func narrowRowGeneric(dst []uint16, x []float32) {
	for i, v := range x {
		dst[i] = f32ToBF16(v)
	}
}
