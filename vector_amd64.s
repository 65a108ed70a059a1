//go:build !purego

#include "textflag.h"

// Elementwise kernels and sums on AVX2: n is a multiple of eight and not zero. Results have the bits of the references. Loops
// are aligned: across a fetch boundary the short ones take three times as long.

// func sumSquaresVector(x *float32, n int, s *lanes)
// Reference: sumSquaresGeneric.
TEXT ·sumSquaresVector(SB), NOSPLIT, $0-24
	MOVQ    x+0(FP), SI
	MOVQ    n+8(FP), CX
	MOVQ    s+16(FP), DI
	VMOVUPS (DI), Y0
	PCALIGN $32

squares:
	VMOVUPS (SI), Y1
	VMULPS  Y1, Y1, Y1
	VADDPS  Y1, Y0, Y0
	ADDQ    $32, SI
	SUBQ    $8, CX
	JNE     squares
	VMOVUPS Y0, (DI)
	VZEROUPPER
	RET

// func mulScaledVector(dst, x, weight *float32, n int, scale float32)
// Reference: mulScaledGeneric.
TEXT ·mulScaledVector(SB), NOSPLIT, $0-36
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         weight+16(FP), DX
	MOVQ         n+24(FP), CX
	VBROADCASTSS scale+32(FP), Y0
	PCALIGN $32

scaled:
	VMULPS  (SI), Y0, Y1
	VMULPS  (DX), Y1, Y1
	VMOVUPS Y1, (DI)
	ADDQ    $32, SI
	ADDQ    $32, DX
	ADDQ    $32, DI
	SUBQ    $8, CX
	JNE     scaled
	VZEROUPPER
	RET

// func scaleVector(dst, x *float32, n int, a float32)
// Reference: scaleGeneric.
TEXT ·scaleVector(SB), NOSPLIT, $0-28
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSS a+24(FP), Y0
	PCALIGN $32

times:
	VMULPS  (SI), Y0, Y1
	VMOVUPS Y1, (DI)
	ADDQ    $32, SI
	ADDQ    $32, DI
	SUBQ    $8, CX
	JNE     times
	VZEROUPPER
	RET

// func rotatePairsVector(a, b, cos, sin *float32, n int)
// Reference: rotatePairsGeneric.
TEXT ·rotatePairsVector(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ b+8(FP), SI
	MOVQ cos+16(FP), DX
	MOVQ sin+24(FP), BX
	MOVQ n+32(FP), CX
	PCALIGN $32

pairs:
	VMOVUPS (DI), Y0
	VMOVUPS (SI), Y1
	VMOVUPS (DX), Y2
	VMOVUPS (BX), Y3
	VMULPS  Y2, Y0, Y4 // a·cos
	VMULPS  Y3, Y1, Y5 // b·sin
	VSUBPS  Y5, Y4, Y4
	VMULPS  Y2, Y1, Y5 // b·cos
	VMULPS  Y3, Y0, Y6 // a·sin
	VADDPS  Y6, Y5, Y5
	VMOVUPS Y4, (DI)
	VMOVUPS Y5, (SI)
	ADDQ    $32, DI
	ADDQ    $32, SI
	ADDQ    $32, DX
	ADDQ    $32, BX
	SUBQ    $8, CX
	JNE     pairs
	VZEROUPPER
	RET

// func narrowF16Vector(dst *uint16, x *float32, n int)
// Reference: narrowF16Generic.
TEXT ·narrowF16Vector(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX
	PCALIGN $32

halves:
	VMOVUPS   (SI), Y0
	VCVTPS2PH $0, Y0, (DI) // to nearest, ties to even
	ADDQ      $32, SI
	ADDQ      $16, DI
	SUBQ      $8, CX
	JNE       halves
	VZEROUPPER
	RET

// func narrowInt8Vector(dst *int8, x *float32, n int, inverse float32)
// Reference: narrowInt8Generic.
TEXT ·narrowInt8Vector(SB), NOSPLIT, $0-28
	MOVQ         dst+0(FP), DI
	MOVQ         x+8(FP), SI
	MOVQ         n+16(FP), CX
	VBROADCASTSS inverse+24(FP), Y15
	PCALIGN $32

bytes:
	VMULPS       (SI), Y15, Y0
	VCVTPS2DQ    Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPACKSSDW    X1, X0, X0
	VPACKSSWB    X0, X0, X0
	VMOVQ        X0, (DI)
	ADDQ         $32, SI
	ADDQ         $8, DI
	SUBQ         $8, CX
	JNE          bytes
	VZEROUPPER
	RET

// func magnitudeVector(x *float32, n int) float32
// Reference: magnitudeGeneric.
TEXT ·magnitudeVector(SB), NOSPLIT, $0-20
	MOVQ     x+0(FP), SI
	MOVQ     n+8(FP), CX
	VPCMPEQD Y15, Y15, Y15
	VPSRLD   $1, Y15, Y15 // all but the sign bit
	VPXOR    Y0, Y0, Y0
	PCALIGN $32

magnitudes:
	VPAND        (SI), Y15, Y1
	VPMAXUD      Y1, Y0, Y0
	ADDQ         $32, SI
	SUBQ         $8, CX
	JNE          magnitudes
	VEXTRACTI128 $1, Y0, X1
	VPMAXUD      X1, X0, X0
	VPSHUFD      $0x4e, X0, X1
	VPMAXUD      X1, X0, X0
	VPSHUFD      $0xb1, X0, X1
	VPMAXUD      X1, X0, X0
	VMOVSS       X0, ret+16(FP)
	VZEROUPPER
	RET

// func maximumVector(x *float32, n int) float32
// Reference: maximumGeneric, but a NaN may or may not be the result.
TEXT ·maximumVector(SB), NOSPLIT, $0-20
	MOVQ    x+0(FP), SI
	MOVQ    n+8(FP), CX
	VMOVUPS (SI), Y0
	VMOVAPS Y0, Y1
	VMOVAPS Y0, Y2
	VMOVAPS Y0, Y3
	SUBQ    $32, CX
	JLT     few
	PCALIGN $32

largest: // four at a time: one alone waits for its own results
	VMAXPS (SI), Y0, Y0
	VMAXPS 32(SI), Y1, Y1
	VMAXPS 64(SI), Y2, Y2
	VMAXPS 96(SI), Y3, Y3
	ADDQ   $128, SI
	SUBQ   $32, CX
	JGE    largest

few:
	ADDQ   $32, CX
	JEQ    together
	VMAXPS (SI), Y0, Y0
	ADDQ   $32, SI
	SUBQ   $40, CX
	JMP    few

together:
	VMAXPS       Y1, Y0, Y0
	VMAXPS       Y3, Y2, Y2
	VMAXPS       Y2, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VMAXPS       X1, X0, X0
	VPERMILPS    $0x4e, X0, X1
	VMAXPS       X1, X0, X0
	VMOVSHDUP    X0, X1
	VMAXSS       X1, X0, X0
	VMOVSS       X0, ret+16(FP)
	VZEROUPPER
	RET

// The constants of exp32, each eight times.
#define EIGHT(at, c) \
	DATA exp<>+(32*at+0)(SB)/4, c  \
	DATA exp<>+(32*at+4)(SB)/4, c  \
	DATA exp<>+(32*at+8)(SB)/4, c  \
	DATA exp<>+(32*at+12)(SB)/4, c \
	DATA exp<>+(32*at+16)(SB)/4, c \
	DATA exp<>+(32*at+20)(SB)/4, c \
	DATA exp<>+(32*at+24)(SB)/4, c \
	DATA exp<>+(32*at+28)(SB)/4, c

EIGHT(0, $(-87.33))                   // lowest
EIGHT(1, $(1.4426950408889634))       // log2(e)
EIGHT(2, $(12582912.0))               // rounds to whole numbers
EIGHT(3, $(0.693145751953125))        // ln2, its upper bits
EIGHT(4, $(1.42860682030941723212e-6)) // and the rest
EIGHT(5, $(1.0))
EIGHT(6, $(0.499999934))              // c2
EIGHT(7, $(0.166665206))              // c3
EIGHT(8, $(0.041668388))              // c4
EIGHT(9, $(0.00836871689))            // c5
EIGHT(10, $(0.00138145985))           // c6
EIGHT(11, $0x80000000)                // the sign bit
GLOBL exp<>(SB), RODATA|NOPTR, $384

// Y3 = e^Y0 and Y8 = e^Y5 for arguments ≤ 0, step by step as exp32 computes it; in turns, for the one alone waits for its own
// results. Y13 is the lowest, Y15 is 1; uses Y0 … Y11.
#define EXP2 \
	VCMPPS $5, Y13, Y0, Y10          \ // not below the lowest, or NaN
	VCMPPS $5, Y13, Y5, Y11          \
	VMAXPS Y0, Y13, Y0               \ // NaN stays
	VMAXPS Y5, Y13, Y5               \
	VMULPS exp<>+32(SB), Y0, Y1      \
	VMULPS exp<>+32(SB), Y5, Y6      \
	VADDPS exp<>+64(SB), Y1, Y1      \
	VADDPS exp<>+64(SB), Y6, Y6      \
	VSUBPS exp<>+64(SB), Y1, Y2      \ // n
	VSUBPS exp<>+64(SB), Y6, Y7      \
	VMULPS exp<>+96(SB), Y2, Y3      \
	VMULPS exp<>+96(SB), Y7, Y8      \
	VMULPS exp<>+128(SB), Y2, Y4     \
	VMULPS exp<>+128(SB), Y7, Y9     \
	VSUBPS Y3, Y0, Y0                \
	VSUBPS Y8, Y5, Y5                \
	VSUBPS Y4, Y0, Y0                \ // r
	VSUBPS Y9, Y5, Y5                \
	VMULPS Y0, Y0, Y2                \ // r²
	VMULPS Y5, Y5, Y7                \
	VMULPS exp<>+288(SB), Y0, Y3     \
	VMULPS exp<>+288(SB), Y5, Y8     \
	VMULPS exp<>+320(SB), Y2, Y4     \
	VMULPS exp<>+320(SB), Y7, Y9     \
	VADDPS exp<>+256(SB), Y3, Y3     \
	VADDPS exp<>+256(SB), Y8, Y8     \
	VADDPS Y4, Y3, Y3                \ // b = c4 + c5·r + c6·r²
	VADDPS Y9, Y8, Y8                \
	VMULPS exp<>+224(SB), Y0, Y4     \
	VMULPS exp<>+224(SB), Y5, Y9     \
	VMULPS Y2, Y3, Y3                \
	VMULPS Y7, Y8, Y8                \
	VADDPS exp<>+192(SB), Y4, Y4     \ // a = c2 + c3·r
	VADDPS exp<>+192(SB), Y9, Y9     \
	VADDPS Y4, Y3, Y3                \
	VADDPS Y9, Y8, Y8                \
	VMULPS Y2, Y3, Y3                \
	VMULPS Y7, Y8, Y8                \
	VPSLLD $23, Y1, Y1               \
	VPSLLD $23, Y6, Y6               \
	VADDPS Y0, Y3, Y3                \
	VADDPS Y5, Y8, Y8                \
	VPADDD Y15, Y1, Y1               \ // 2^n
	VPADDD Y15, Y6, Y6               \
	VADDPS Y15, Y3, Y3               \
	VADDPS Y15, Y8, Y8               \
	VMULPS Y1, Y3, Y3                \
	VMULPS Y6, Y8, Y8                \
	VANDPS Y10, Y3, Y3               \
	VANDPS Y11, Y8, Y8

// func expSumAVX2(x *float32, n int, top float32, s *lanes)
// Reference: expSumGeneric.
TEXT ·expSumAVX2(SB), NOSPLIT, $0-32
	MOVQ         x+0(FP), SI
	MOVQ         n+8(FP), CX
	VBROADCASTSS top+16(FP), Y14
	MOVQ         s+24(FP), DI
	VMOVUPS      (DI), Y12
	VMOVUPS      exp<>+0(SB), Y13
	VMOVUPS      exp<>+160(SB), Y15
	PCALIGN $32

exps:
	VMOVUPS (SI), Y0
	VSUBPS  Y14, Y0, Y0
	VMOVAPS Y0, Y5
	SUBQ    $16, CX
	JLT     expsLast
	VMOVUPS 32(SI), Y5
	VSUBPS  Y14, Y5, Y5
	EXP2
	VMOVUPS Y3, (SI)
	VMOVUPS Y8, 32(SI)
	VADDPS  Y3, Y12, Y12
	VADDPS  Y8, Y12, Y12
	ADDQ    $64, SI
	TESTQ   CX, CX
	JNE     exps
	JMP     expsDone

expsLast:
	EXP2
	VMOVUPS Y3, (SI)
	VADDPS  Y3, Y12, Y12

expsDone:
	VMOVUPS Y12, (DI)
	VZEROUPPER
	RET

// dst = (g < 0 ? g·e : g) / (1 + e) · up
#define SILU(g, up, e, t, dst) \
	VMOVUPS   g, t          \
	VMULPS    e, t, Y14     \
	VBLENDVPS t, Y14, t, t  \
	VADDPS    Y15, e, e     \
	VDIVPS    e, t, t       \
	VMULPS    up, t, t      \
	VMOVUPS   t, dst

// func mulSiluAVX2(dst, gate, up *float32, n int)
// Reference: mulSiluGeneric.
TEXT ·mulSiluAVX2(SB), NOSPLIT, $0-32
	MOVQ    dst+0(FP), DI
	MOVQ    gate+8(FP), SI
	MOVQ    up+16(FP), DX
	MOVQ    n+24(FP), CX
	VMOVUPS exp<>+352(SB), Y12
	VMOVUPS exp<>+0(SB), Y13
	VMOVUPS exp<>+160(SB), Y15
	PCALIGN $32

silus:
	VORPS   (SI), Y12, Y0
	VMOVAPS Y0, Y5
	SUBQ    $16, CX
	JLT     silusLast
	VORPS   32(SI), Y12, Y5
	EXP2
	SILU((SI), (DX), Y3, Y0, (DI))
	SILU(32(SI), 32(DX), Y8, Y5, 32(DI))
	ADDQ    $64, SI
	ADDQ    $64, DX
	ADDQ    $64, DI
	TESTQ   CX, CX
	JNE     silus
	VZEROUPPER
	RET

silusLast:
	EXP2
	SILU((SI), (DX), Y3, Y0, (DI))
	VZEROUPPER
	RET
