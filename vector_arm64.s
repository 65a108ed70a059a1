//go:build !purego

#include "textflag.h"
#include "words_arm64.h"

// Elementwise kernels and sums on NEON: n is a multiple of eight and not zero. Results have the bits of the references.

// func sumSquaresVector(x *float32, n int, s *lanes)
// Reference: sumSquaresGeneric.
TEXT ·sumSquaresVector(SB), NOSPLIT, $0-24
	MOVD  x+0(FP), R0
	MOVD  n+8(FP), R1
	MOVD  s+16(FP), R2
	FLDPQ (R2), (F0, F1)

squares:
	FLDPQ.P 32(R0), (F2, F3)
	FMULV(2, 2, 2)
	FMULV(3, 3, 3)
	FADDV(0, 0, 2)
	FADDV(1, 1, 3)
	SUBS  $8, R1
	BNE   squares
	FSTPQ (F0, F1), (R2)
	RET

// func mulScaledVector(dst, x, weight *float32, n int, scale float32)
// Reference: mulScaledGeneric.
TEXT ·mulScaledVector(SB), NOSPLIT, $0-36
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  weight+16(FP), R2
	MOVD  n+24(FP), R3
	FMOVS scale+32(FP), F0

scaled:
	FLDPQ.P 32(R1), (F2, F3)
	FLDPQ.P 32(R2), (F4, F5)
	FMULE(2, 2, 0, 0)
	FMULE(3, 3, 0, 0)
	FMULV(2, 2, 4)
	FMULV(3, 3, 5)
	FSTPQ.P (F2, F3), 32(R0)
	SUBS  $8, R3
	BNE   scaled
	RET

// func addToNEON(dst, x *float32, n int)
// Reference: addToGeneric.
TEXT ·addToNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD n+16(FP), R2

plus:
	FLDPQ   (R0), (F0, F1)
	FLDPQ.P 32(R1), (F2, F3)
	FADDV(0, 0, 2)
	FADDV(1, 1, 3)
	FSTPQ.P (F0, F1), 32(R0)
	SUBS    $8, R2
	BNE     plus
	RET

// func mulByNEON(dst, x *float32, n int)
// Reference: mulByGeneric.
TEXT ·mulByNEON(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD n+16(FP), R2

by:
	FLDPQ   (R0), (F0, F1)
	FLDPQ.P 32(R1), (F2, F3)
	FMULV(0, 0, 2)
	FMULV(1, 1, 3)
	FSTPQ.P (F0, F1), 32(R0)
	SUBS    $8, R2
	BNE     by
	RET

// func scaleVector(dst, x *float32, n int, a float32)
// Reference: scaleGeneric.
TEXT ·scaleVector(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R2
	FMOVS a+24(FP), F0

times:
	FLDPQ.P 32(R1), (F2, F3)
	FMULE(2, 2, 0, 0)
	FMULE(3, 3, 0, 0)
	FSTPQ.P (F2, F3), 32(R0)
	SUBS    $8, R2
	BNE     times
	RET

// func rotatePairsVector(a, b, cos, sin *float32, n int)
// Reference: rotatePairsGeneric.
TEXT ·rotatePairsVector(SB), NOSPLIT, $0-40
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD cos+16(FP), R2
	MOVD sin+24(FP), R3
	MOVD n+32(FP), R4

pairs:
	FMOVQ   (R0), F0
	FMOVQ   (R1), F1
	FMOVQ.P 16(R2), F2
	FMOVQ.P 16(R3), F3
	FMULV(4, 0, 2) // a·cos
	FMULV(5, 1, 3) // b·sin
	FSUBV(4, 4, 5)
	FMULV(5, 1, 2) // b·cos
	FMULV(6, 0, 3) // a·sin
	FADDV(5, 5, 6)
	FMOVQ.P F4, 16(R0)
	FMOVQ.P F5, 16(R1)
	SUBS    $4, R4
	BNE     pairs
	RET

// func narrowF16Vector(dst *uint16, x *float32, n int)
// Reference: narrowF16Generic.
TEXT ·narrowF16Vector(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R1
	MOVD n+16(FP), R2

halves:
	FLDPQ.P 32(R1), (F0, F1)
	FCVTN(2, 0)
	FCVTN2(2, 1)
	VST1.P  [V2.B16], 16(R0)
	SUBS    $8, R2
	BNE     halves
	RET

// func narrowInt8Vector(dst *int8, x *float32, n int, inverse float32)
// Reference: narrowInt8Generic.
TEXT ·narrowInt8Vector(SB), NOSPLIT, $0-28
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R1
	MOVD  n+16(FP), R2
	FMOVS inverse+24(FP), F15

bytes:
	FLDPQ.P 32(R1), (F0, F1)
	FMULE(0, 0, 15, 0)
	FMULE(1, 1, 15, 0)
	FCVTNSV(0, 0)
	FCVTNSV(1, 1)
	VUZP1   V1.H8, V0.H8, V0.H8
	VUZP1   V0.B16, V0.B16, V0.B16
	FMOVD.P F0, 8(R0)
	SUBS    $8, R2
	BNE     bytes
	RET

// func magnitudeVector(x *float32, n int) float32
// Reference: magnitudeGeneric.
TEXT ·magnitudeVector(SB), NOSPLIT, $0-20
	MOVD x+0(FP), R0
	MOVD n+8(FP), R1
	MOVD $0x7fffffff, R2 // all but the sign bit
	VDUP R2, V3.S4
	ZEROV(0)

magnitudes:
	FLDPQ.P 32(R0), (F1, F2)
	VAND    V3.B16, V1.B16, V1.B16
	VAND    V3.B16, V2.B16, V2.B16
	VUMAX   V1.S4, V0.S4, V0.S4
	VUMAX   V2.S4, V0.S4, V0.S4
	SUBS    $8, R1
	BNE     magnitudes
	UMAXVS(0, 0)
	FMOVS   F0, ret+16(FP)
	RET

// func maximumVector(x *float32, n int) float32
// Reference: maximumGeneric.
TEXT ·maximumVector(SB), NOSPLIT, $0-20
	MOVD  x+0(FP), R0
	MOVD  n+8(FP), R1
	FLDPQ (R0), (F0, F1)

largest:
	FLDPQ.P 32(R0), (F2, F3)
	FMAXV(0, 0, 2)
	FMAXV(1, 1, 3)
	SUBS    $8, R1
	BNE     largest
	FMAXV(0, 0, 1)
	FMAXVS(0, 0)
	FMOVS   F0, ret+16(FP)
	RET

// The constants of exp32.
DATA exp<>+0(SB)/4, $(-87.33)                    // lowest
DATA exp<>+4(SB)/4, $(1.4426950408889634)         // log2(e)
DATA exp<>+8(SB)/4, $(12582912.0)                 // rounds to whole numbers
DATA exp<>+12(SB)/4, $(0.693145751953125)         // ln2, its upper bits
DATA exp<>+16(SB)/4, $(1.42860682030941723212e-6) // and the rest
DATA exp<>+20(SB)/4, $(1.0)
DATA exp<>+24(SB)/4, $(0.499999934)   // c2
DATA exp<>+28(SB)/4, $(0.166665206)   // c3
DATA exp<>+32(SB)/4, $(0.041668388)   // c4
DATA exp<>+36(SB)/4, $(0.00836871689) // c5
DATA exp<>+40(SB)/4, $(0.00138145985) // c6
DATA exp<>+44(SB)/4, $0x80000000      // the sign bit
GLOBL exp<>(SB), RODATA|NOPTR, $48

// V16 … V27 are the constants, in every lane.
#define EXPCONSTANTS \
	MOVD  $exp<>(SB), R9    \
	FLDPQ (R9), (F28, F29)  \
	FMOVQ 32(R9), F30       \
	DUPE(16, 28, 0)         \
	DUPE(17, 28, 1)         \
	DUPE(18, 28, 2)         \
	DUPE(19, 28, 3)         \
	DUPE(20, 29, 0)         \
	DUPE(21, 29, 1)         \
	DUPE(22, 29, 2)         \
	DUPE(23, 29, 3)         \
	DUPE(24, 30, 0)         \
	DUPE(25, 30, 1)         \
	DUPE(26, 30, 2)         \
	DUPE(27, 30, 3)

// Vx = e^Vx for Vx ≤ 0, step by step as exp32 computes it. Uses a, b, c, d.
#define EXP(x, a, b, c, d) \
	FCMGTV(d, 16, x)  \ // below the lowest, and no NaN
	FMAXV(x, x, 16)   \
	FMULV(a, x, 17)   \
	FADDV(a, a, 18)   \
	FSUBV(b, a, 18)   \ // n
	FMULV(c, b, 19)   \
	FSUBV(x, x, c)    \
	FMULV(c, b, 20)   \
	FSUBV(x, x, c)    \ // r
	FMULV(b, x, x)    \ // r²
	FMULV(c, 25, x)   \
	FADDV(c, c, 24)   \
	FMULV(31, 26, b)  \
	FADDV(c, c, 31)   \ // c4 + c5·r + c6·r²
	FMULV(c, c, b)    \
	FMULV(31, 23, x)  \
	FADDV(31, 31, 22) \ // c2 + c3·r
	FADDV(c, c, 31)   \
	FMULV(c, c, b)    \
	FADDV(c, c, x)    \
	FADDV(c, c, 21)   \
	SHL23(a, a)       \
	ADDV(a, a, 21)    \ // 2^n
	FMULV(c, c, a)    \
	BICV(x, c, d)

// func expSumVector(x *float32, n int, top float32, s *lanes)
// Reference: expSumGeneric.
TEXT ·expSumVector(SB), NOSPLIT, $0-32
	MOVD  x+0(FP), R0
	MOVD  n+8(FP), R1
	MOVD  s+24(FP), R2
	EXPCONSTANTS
	FMOVS top+16(FP), F28
	DUPE(28, 28, 0)
	FLDPQ (R2), (F29, F30)

exps:
	FLDPQ   (R0), (F0, F1)
	FSUBV(0, 0, 28)
	FSUBV(1, 1, 28)
	EXP(0, 2, 3, 4, 5)
	EXP(1, 2, 3, 4, 5)
	FADDV(29, 29, 0)
	FADDV(30, 30, 1)
	FSTPQ.P (F0, F1), 32(R0)
	SUBS    $8, R1
	BNE     exps
	FSTPQ   (F29, F30), (R2)
	RET

// func mulSiluVector(dst, gate, up *float32, n int)
// Reference: mulSiluGeneric.
TEXT ·mulSiluVector(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD gate+8(FP), R1
	MOVD up+16(FP), R2
	MOVD n+24(FP), R3
	EXPCONSTANTS

silus:
	FMOVQ.P 16(R1), F6
	FMOVQ.P 16(R2), F7
	ORRV(0, 6, 27)
	EXP(0, 2, 3, 4, 5)
	FMULV(1, 6, 0)
	CMLT0(2, 6)
	BSLV(2, 1, 6)
	FADDV(0, 0, 21)
	FDIVV(2, 2, 0)
	FMULV(2, 2, 7)
	FMOVQ.P F2, 16(R0)
	SUBS    $4, R3
	BNE     silus
	RET
