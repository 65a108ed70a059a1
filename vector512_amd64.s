//go:build !purego

#include "textflag.h"

// The exponential function on AVX-512, step by step as on AVX2 (vector_amd64.s) and so with its bits: 32 elements a turn. What is left
// of n, a multiple of eight and not zero, is done there.

// The constants of exp32.
#define CONSTANTS \
	VBROADCASTSS exp512<>+0(SB), Z16  \ // the lowest
	VBROADCASTSS exp512<>+4(SB), Z17  \ // log2(e)
	VBROADCASTSS exp512<>+8(SB), Z18  \ // rounds to whole numbers
	VBROADCASTSS exp512<>+12(SB), Z19 \ // ln2, its upper bits
	VBROADCASTSS exp512<>+16(SB), Z20 \ // and the rest
	VBROADCASTSS exp512<>+20(SB), Z21 \
	VBROADCASTSS exp512<>+24(SB), Z22 \ // c2
	VBROADCASTSS exp512<>+28(SB), Z23 \ // c3
	VBROADCASTSS exp512<>+32(SB), Z24 \ // c4
	VBROADCASTSS exp512<>+36(SB), Z25 \ // c5
	VBROADCASTSS exp512<>+40(SB), Z26

DATA exp512<>+0(SB)/4, $(-87.33) // the lowest
DATA exp512<>+4(SB)/4, $(1.4426950408889634) // log2(e)
DATA exp512<>+8(SB)/4, $(12582912.0) // rounds to whole numbers
DATA exp512<>+12(SB)/4, $(0.693145751953125) // ln2, its upper bits
DATA exp512<>+16(SB)/4, $(1.4286068203094173e-06) // and the rest
DATA exp512<>+20(SB)/4, $(1.0)
DATA exp512<>+24(SB)/4, $(0.499999934) // c2
DATA exp512<>+28(SB)/4, $(0.166665206) // c3
DATA exp512<>+32(SB)/4, $(0.041668388) // c4
DATA exp512<>+36(SB)/4, $(0.00836871689) // c5
DATA exp512<>+40(SB)/4, $(0.00138145985) // c6
GLOBL exp512<>(SB), RODATA|NOPTR, $48

// Z3 = e^Z0 and Z8 = e^Z5 for arguments ≤ 0. Uses Z0 … Z9, K1 and K2.
#define EXP2 \
	VCMPPS   $5, Z16, Z0, K1 \ // not below the lowest, or NaN
	VCMPPS   $5, Z16, Z5, K2 \
	VMAXPS   Z0, Z16, Z0     \ // NaN stays
	VMAXPS   Z5, Z16, Z5     \
	VMULPS   Z17, Z0, Z1     \
	VMULPS   Z17, Z5, Z6     \
	VADDPS   Z18, Z1, Z1     \
	VADDPS   Z18, Z6, Z6     \
	VSUBPS   Z18, Z1, Z2     \ // n
	VSUBPS   Z18, Z6, Z7     \
	VMULPS   Z19, Z2, Z3     \
	VMULPS   Z19, Z7, Z8     \
	VMULPS   Z20, Z2, Z4     \
	VMULPS   Z20, Z7, Z9     \
	VSUBPS   Z3, Z0, Z0      \
	VSUBPS   Z8, Z5, Z5      \
	VSUBPS   Z4, Z0, Z0      \ // r
	VSUBPS   Z9, Z5, Z5      \
	VMULPS   Z0, Z0, Z2      \ // r²
	VMULPS   Z5, Z5, Z7      \
	VMULPS   Z25, Z0, Z3     \
	VMULPS   Z25, Z5, Z8     \
	VMULPS   Z26, Z2, Z4     \
	VMULPS   Z26, Z7, Z9     \
	VADDPS   Z24, Z3, Z3     \
	VADDPS   Z24, Z8, Z8     \
	VADDPS   Z4, Z3, Z3      \ // b = c4 + c5·r + c6·r²
	VADDPS   Z9, Z8, Z8      \
	VMULPS   Z23, Z0, Z4     \
	VMULPS   Z23, Z5, Z9     \
	VMULPS   Z2, Z3, Z3      \
	VMULPS   Z7, Z8, Z8      \
	VADDPS   Z22, Z4, Z4     \ // a = c2 + c3·r
	VADDPS   Z22, Z9, Z9     \
	VADDPS   Z4, Z3, Z3      \
	VADDPS   Z9, Z8, Z8      \
	VMULPS   Z2, Z3, Z3      \
	VMULPS   Z7, Z8, Z8      \
	VPSLLD   $23, Z1, Z1     \
	VPSLLD   $23, Z6, Z6     \
	VADDPS   Z0, Z3, Z3      \
	VADDPS   Z5, Z8, Z8      \
	VPADDD   Z21, Z1, Z1     \ // 2^n
	VPADDD   Z21, Z6, Z6     \
	VADDPS   Z21, Z3, Z3     \
	VADDPS   Z21, Z8, Z8     \
	VMULPS.Z Z1, Z3, K1, Z3  \
	VMULPS.Z Z6, Z8, K2, Z8

// func expSumAVX512(x *float32, n int, top float32, s *lanes)
// Reference: expSumGeneric.
TEXT ·expSumAVX512(SB), NOSPLIT, $0-32
	MOVQ         x+0(FP), SI
	MOVQ         n+8(FP), CX
	MOVQ         s+24(FP), DI
	SUBQ         $32, CX
	JLT          expsLeft
	VBROADCASTSS top+16(FP), Z14
	VMOVUPS      (DI), Y15
	CONSTANTS
	PCALIGN      $32

exps:
	VMOVUPS       (SI), Z0
	VMOVUPS       64(SI), Z5
	VSUBPS        Z14, Z0, Z0
	VSUBPS        Z14, Z5, Z5
	EXP2
	VMOVUPS       Z3, (SI)
	VMOVUPS       Z8, 64(SI)
	VEXTRACTF64X4 $1, Z3, Y4
	VEXTRACTF64X4 $1, Z8, Y9
	VADDPS        Y3, Y15, Y15
	VADDPS        Y4, Y15, Y15
	VADDPS        Y8, Y15, Y15
	VADDPS        Y9, Y15, Y15
	ADDQ          $128, SI
	SUBQ          $32, CX
	JGE           exps
	VMOVUPS       Y15, (DI)
	VZEROUPPER

expsLeft:
	ADDQ $32, CX
	JEQ  expsDone
	MOVQ SI, x+0(FP)
	MOVQ CX, n+8(FP)
	JMP  ·expSumAVX2(SB)

expsDone:
	RET

// dst = (g < 0 ? g·e : g) / (1 + e) · up
#define SILU(g, up, e, t, dst) \
	VMOVUPS  g, t         \
	VPTESTMD Z27, t, K3   \
	VMULPS   e, t, K3, t  \
	VADDPS   Z21, e, e    \
	VDIVPS   e, t, t      \
	VMULPS   up, t, t     \
	VMOVUPS  t, dst

// func mulSiluAVX512(dst, gate, up *float32, n int)
// Reference: mulSiluGeneric.
TEXT ·mulSiluAVX512(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         gate+8(FP), SI
	MOVQ         up+16(FP), DX
	MOVQ         n+24(FP), CX
	SUBQ         $32, CX
	JLT          silusLeft
	CONSTANTS
	MOVL         $0x80000000, AX
	VPBROADCASTD AX, Z27
	PCALIGN      $32

silus:
	VPORD (SI), Z27, Z0
	VPORD 64(SI), Z27, Z5
	EXP2
	SILU((SI), (DX), Z3, Z0, (DI))
	SILU(64(SI), 64(DX), Z8, Z5, 64(DI))
	ADDQ  $128, SI
	ADDQ  $128, DX
	ADDQ  $128, DI
	SUBQ  $32, CX
	JGE   silus
	VZEROUPPER

silusLeft:
	ADDQ $32, CX
	JEQ  silusDone
	MOVQ DI, dst+0(FP)
	MOVQ SI, gate+8(FP)
	MOVQ DX, up+16(FP)
	MOVQ CX, n+24(FP)
	JMP  ·mulSiluAVX2(SB)

silusDone:
	RET
