package photon

import "math"

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
