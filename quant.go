package photon

import (
	"encoding/binary"
	"math"
)

const (
	groupSize = 32 // inputs that share a scale

	int8Group = 2*panelWidth + groupSize*panelWidth   // bytes of a group of a panel: scales, then weights
	int4Group = 2*panelWidth + groupSize/2*panelWidth // likewise

	tinyAmax = 0x1p-100 // groups of activations below this are zero: 127/amax must not overflow
)

// quantGroup is a group of activations, x ≈ q·scale. The kernels know its layout.
type quantGroup struct {
	q     [groupSize]int8
	scale float32
	bias  int32 // Σq times the offset that the weights are held with: -128 or -8
}

// packInt8 quantises the values [≤32] of one output into lane of an int8 group: scale = amax/127 in bfloat16, q = value/scale.
// Values that came out of it give the same weights again. A value that is not finite makes the scale NaN or infinite, and so
// the output NaN.
func packInt8(group []byte, lane int, values []float32) {
	var q [groupSize]int8
	binary.LittleEndian.PutUint16(group[2*lane:], quantizeInt8(&q, values))
	held := group[2*panelWidth:]
	for k, n := range q {
		held[(k/4*panelWidth+lane)*4+k%4] = byte(n) + 128
	}
}

// quantizeInt8 finds q [-127, 127] and a bfloat16 scale.
func quantizeInt8(q *[groupSize]int8, values []float32) (scaleBits uint16) {
	*q = [groupSize]int8{}
	bits := f32ToBF16(magnitude(values) / 127)
	scale := bf16ToF32(bits)
	if scale < leastScale {
		return 0
	}
	for k, v := range values {
		q[k] = int8(min(max(roundToInt(v/scale), -127), 127))
	}
	return bits
}

// packInt4 quantises the values [≤32] of one output into lane of an int4 group.
func packInt4(group []byte, lane int, values []float32) {
	var q [groupSize]int8
	bits := quantizeInt4(&q, values)
	binary.LittleEndian.PutUint16(group[2*lane:], bits)
	packed := group[2*panelWidth:]
	for k := range groupSize / 2 {
		packed[(k/4*panelWidth+lane)*4+k%4] = nibbles(&q, k)
	}
}

// nibbles holds integer k of a group, and the one half a group further on, in a byte.
func nibbles(q *[groupSize]int8, k int) byte { return byte(q[k]+8) | byte(q[k+groupSize/2]+8)<<4 }

// setGroup puts integers into lane of a group as they are, each byte with an offset added; the scale is rounded.
func setGroup(group []byte, lane int, scale float32, integers []byte, offset byte) {
	binary.LittleEndian.PutUint16(group[2*lane:], f32ToBF16(scale))
	held := group[2*panelWidth:]
	for k, n := range integers {
		held[(k/4*panelWidth+lane)*4+k%4] = n + offset
	}
}

// quantizeInt4 finds q [-8, 7] and a bfloat16 scale that leave a small squared error: it tries a few scales, for each the best q,
// and for that q the best scale.
func quantizeInt4(best *[groupSize]int8, values []float32) (scaleBits uint16) {
	*best = [groupSize]int8{}
	extreme := magnitude(values) // with its sign, below
	if !(extreme <= math.MaxFloat32) {
		return f32ToBF16(float32(math.NaN()))
	}
	for _, v := range values {
		if v == -extreme {
			extreme = v
			break
		}
	}
	least := math.Inf(1)
	for _, steps := range [...]float32{-8, -8.5, -7.5, 7.5} { // where on the grid the largest value comes to lie
		scale := bf16ToF32(f32ToBF16(extreme / steps))
		if max(scale, -scale) < leastScale {
			continue
		}
		inverse := 1 / scale
		var q [groupSize]int8
		var products, squares float64 // Σ value·q, Σ q²
		for k, v := range values {
			n := min(max(roundToInt(float32(v*inverse)), -8), 7)
			q[k] = int8(n)
			products += float64(v) * float64(n)
			squares += float64(n * n)
		}
		bits := f32ToBF16(float32(products / squares))
		scale = bf16ToF32(bits)
		sum := 0.0
		for k, v := range values {
			e := float64(v) - float64(scale)*float64(q[k])
			sum += float64(e * e)
		}
		if sum < least {
			least, scaleBits, *best = sum, bits, q
		}
	}
	return scaleBits
}

// leastScale is the least scale to divide by: its inverse is finite.
const leastScale = 0x1p-126

// roundToInt rounds |v| < 2^22 to nearest, ties to even: adding 1.5·2^23 leaves the integer in the last bits.
func roundToInt(v float32) int32 {
	return int32(math.Float32bits(v+0x1.8p23)) - 0x4b400000
}

// f16ToF32 converts IEEE half precision, exactly; a NaN keeps its payload. The product moves the exponent, of subnormal halves too;
// what was infinite or NaN is then at least 2^16 and gets the largest exponent.
func f16ToF32(h uint16) float32 {
	bits := math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112)
	if bits >= 0x47800000 {
		bits |= 0x7f800000
	}
	return math.Float32frombits(bits | uint32(h&0x8000)<<16)
}

// f32ToF16 rounds to the nearest half, ties to even; beyond the largest half it is an infinity. A NaN stays a quiet NaN.
func f32ToF16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits>>16) & 0x8000
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000:
		return sign | 0x7e00 | uint16(bits>>13)&0x1ff
	case bits >= 0x477ff000: // 65520, halfway from the largest half to 2^16, rounds up
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: subnormal, so let float addition round at 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-math.Float32bits(0.5))
	}
	bits -= (127 - 15) << 23
	return sign | uint16((bits+0xfff+bits>>13&1)>>13)
}

// bf16ToF32 converts bfloat16, exactly.
func bf16ToF32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// f32ToBF16 rounds to the nearest bfloat16, ties to even. A NaN stays a quiet NaN.
func f32ToBF16(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
