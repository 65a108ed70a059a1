//go:build !purego

#include "textflag.h"
#include "words_arm64.h"

// The activations of integer products and of products of bfloat16.

// func quantizeGroupsNEON(dst *quantGroup, x *float32, groups int, offset int32)
// Reference: quantizeRowGeneric, the same bits.
//
// V0 … V7 the group's values, V16 … V19 their magnitudes; V30 the sign bit's complement, V31 lane 0 127.
TEXT ·quantizeGroupsNEON(SB), NOSPLIT, $0-28
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD groups+16(FP), R7
	MOVW offset+24(FP), R8
	MOVD $0x7fffffff, R9
	VDUP R9, V30.S4
	MOVD $0x42fe0000, R9             // 127
	VDUP R9, V31.S4
	MOVD $0x7f800000, R11            // infinity
	MOVD $0x0d800000, R12            // tinyAmax

group:
	VLD1.P 64(R3), [V0.S4, V1.S4, V2.S4, V3.S4]
	VLD1.P 64(R3), [V4.S4, V5.S4, V6.S4, V7.S4]
	VAND   V30.B16, V0.B16, V16.B16
	VAND   V30.B16, V1.B16, V17.B16
	VAND   V30.B16, V2.B16, V18.B16
	VAND   V30.B16, V3.B16, V19.B16
	VAND   V30.B16, V4.B16, V20.B16
	VAND   V30.B16, V5.B16, V21.B16
	VAND   V30.B16, V6.B16, V22.B16
	VAND   V30.B16, V7.B16, V23.B16
	VUMAX  V20.S4, V16.S4, V16.S4
	VUMAX  V21.S4, V17.S4, V17.S4
	VUMAX  V22.S4, V18.S4, V18.S4
	VUMAX  V23.S4, V19.S4, V19.S4
	VUMAX  V18.S4, V16.S4, V16.S4
	VUMAX  V19.S4, V17.S4, V17.S4
	VUMAX  V17.S4, V16.S4, V16.S4
	UMAXVS(16, 16)
	FMOVS  F16, R9
	CMPW   R11, R9
	BHS    nan
	CMPW   R12, R9
	BLO    zero
	FDIVS  F31, F16, F17             // amax / 127
	FDIVS  F16, F31, F18             // 127 / amax
	FMOVS  F17, 32(R0)
	FMULE(0, 0, 18, 0)
	FMULE(1, 1, 18, 0)
	FMULE(2, 2, 18, 0)
	FMULE(3, 3, 18, 0)
	FMULE(4, 4, 18, 0)
	FMULE(5, 5, 18, 0)
	FMULE(6, 6, 18, 0)
	FMULE(7, 7, 18, 0)
	FCVTNSV(0, 0)
	FCVTNSV(1, 1)
	FCVTNSV(2, 2)
	FCVTNSV(3, 3)
	FCVTNSV(4, 4)
	FCVTNSV(5, 5)
	FCVTNSV(6, 6)
	FCVTNSV(7, 7)
	VUZP1  V1.H8, V0.H8, V0.H8
	VUZP1  V3.H8, V2.H8, V2.H8
	VUZP1  V5.H8, V4.H8, V4.H8
	VUZP1  V7.H8, V6.H8, V6.H8
	VADD   V2.H8, V0.H8, V16.H8
	VADD   V6.H8, V4.H8, V17.H8
	VADD   V17.H8, V16.H8, V16.H8
	SADDLP(16, 16)
	VADDV  V16.S4, V16
	FMOVS  F16, R9
	MULW   R8, R9
	MOVW   R9, 36(R0)
	VUZP1  V2.B16, V0.B16, V0.B16
	VUZP1  V6.B16, V4.B16, V1.B16
	FSTPQ  (F0, F1), (R0)

next:
	ADD  $40, R0
	SUBS $1, R7
	BNE  group
	RET

nan:
	MOVD $0x7fc00000, R9
	B    none

zero:
	MOVD $0, R9

none:
	STP  (ZR, ZR), (R0)
	STP  (ZR, ZR), 16(R0)
	MOVD R9, 32(R0)
	B    next

// V0, V1 = eight values with their upper halves rounded to nearest, ties to even, and a NaN made quiet; V29 … V31 are 1, 0x7fff
// and the quiet bit.
#define ROUNDINGS \
	MOVD $1, R8        \
	VDUP R8, V29.S4    \
	MOVD $0x7fff, R8   \
	VDUP R8, V30.S4    \
	MOVD $0x400000, R8 \
	VDUP R8, V31.S4

#define ROUND(v, n, t, mask, m) \
	VUSHR $16, v.S4, t.S4        \
	FCMEQV(m, n, n)              \
	VAND  V29.B16, t.B16, t.B16  \
	VADD  V30.S4, t.S4, t.S4     \
	VADD  v.S4, t.S4, t.S4       \
	VORR  V31.B16, v.B16, v.B16  \
	VBIT  mask.B16, t.B16, v.B16

// func roundNEON(dst, x *float32, n int)
// Reference: roundRowGeneric, the same bits. n is a multiple of 8, and not 0.
TEXT ·roundNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD n+16(FP), R7
	ROUNDINGS
	VEOR V28.B16, V28.B16, V28.B16

eight:
	FLDPQ.P 32(R3), (F0, F1)
	ROUND(V0, 0, V2, V4, 4)
	ROUND(V1, 1, V3, V5, 5)
	VTRN2   V0.H8, V28.H8, V0.H8     // lower halves zero
	VTRN2   V1.H8, V28.H8, V1.H8
	FSTPQ.P (F0, F1), 32(R0)
	SUBS    $8, R7
	BNE     eight
	RET

// func narrowNEON(dst *uint16, x *float32, n int)
// Reference: narrowRowGeneric, the same bits. n is a multiple of 8, and not 0.
TEXT ·narrowNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD n+16(FP), R7
	ROUNDINGS

eight:
	FLDPQ.P 32(R3), (F0, F1)
	ROUND(V0, 0, V2, V4, 4)
	ROUND(V1, 1, V3, V5, 5)
	VUZP2   V1.H8, V0.H8, V0.H8      // upper halves
	FMOVQ.P F0, 16(R0)
	SUBS    $8, R7
	BNE     eight
	RET

// func instructionSet1() uint64
TEXT ·instructionSet1(SB), NOSPLIT, $0-8
	MRS  ID_AA64ISAR1_EL1, R0
	MOVD R0, ret+0(FP)
	RET
