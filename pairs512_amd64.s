//go:build !purego

#include "textflag.h"
#include "tile512_amd64.h"

// Blocks of bf16 panels with activations in bfloat16, on AVX512_BF16.

// The assembler has no VDPBF16PS: Zd += the two products of Zw's and Z14's bfloat16 pairs.
#define DOT_Z0 BYTE $0x62; BYTE $0xd2; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xc6 // VDPBF16PS Z14, Z12, Z0
#define DOT_Z1 BYTE $0x62; BYTE $0xd2; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xce // VDPBF16PS Z14, Z13, Z1
#define DOT_Z2 BYTE $0x62; BYTE $0xd2; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xd6 // VDPBF16PS Z14, Z12, Z2
#define DOT_Z3 BYTE $0x62; BYTE $0xd2; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xde // VDPBF16PS Z14, Z13, Z3
#define DOT_Z4 BYTE $0x62; BYTE $0xd2; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xe6 // VDPBF16PS Z14, Z12, Z4
#define DOT_Z5 BYTE $0x62; BYTE $0xd2; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xee // VDPBF16PS Z14, Z13, Z5
#define DOT_Z6 BYTE $0x62; BYTE $0xd2; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xf6 // VDPBF16PS Z14, Z12, Z6
#define DOT_Z7 BYTE $0x62; BYTE $0xd2; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xfe // VDPBF16PS Z14, Z13, Z7
#define DOT_Z8 BYTE $0x62; BYTE $0x52; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xc6 // VDPBF16PS Z14, Z12, Z8
#define DOT_Z9 BYTE $0x62; BYTE $0x52; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xce // VDPBF16PS Z14, Z13, Z9
#define DOT_Z10 BYTE $0x62; BYTE $0x52; BYTE $0x1e; BYTE $0x48; BYTE $0x52; BYTE $0xd6 // VDPBF16PS Z14, Z12, Z10
#define DOT_Z11 BYTE $0x62; BYTE $0x52; BYTE $0x16; BYTE $0x48; BYTE $0x52; BYTE $0xde // VDPBF16PS Z14, Z13, Z11

// w of a pair of inputs at p.
#define PAIRSW(p) \
	VMOVDQU32 0 p, Z12  \
	VMOVDQU32 64 p, Z13

// The pairs of one to six rows of x.
#define PAIRS1 \
	VPBROADCASTD (R12), Z14; DOT_Z0; DOT_Z1

#define PAIRS2 \
	PAIRS1                         \
	VPBROADCASTD (R12)(R9*1), Z14; DOT_Z2; DOT_Z3

#define PAIRS3 \
	PAIRS2                         \
	VPBROADCASTD (R12)(R9*2), Z14; DOT_Z4; DOT_Z5

#define PAIRS4 \
	PAIRS3                         \
	VPBROADCASTD (R13), Z14; DOT_Z6; DOT_Z7

#define PAIRS5 \
	PAIRS4                         \
	VPBROADCASTD (R13)(R9*1), Z14; DOT_Z8; DOT_Z9

#define PAIRS6 \
	PAIRS5                         \
	VPBROADCASTD (R13)(R9*2), Z14; DOT_Z10; DOT_Z11

// func mulBlockPairsAVX512(dst *float32, stride int, x *uint16, xStride, rows int, w *uint16, pairs int, add bool)
// Reference: mulBlockBF16Generic, but for the rounding within a pair and for denormals, which count as zero.
TEXT ·mulBlockPairsAVX512(SB), NOSPLIT, $0-57
	MOVQ    dst+0(FP), DI
	MOVQ    stride+8(FP), R8
	SHLQ    $2, R8
	MOVQ    x+16(FP), SI
	MOVQ    xStride+24(FP), R9
	SHLQ    $1, R9
	MOVQ    rows+32(FP), CX
	MOVQ    w+40(FP), DX
	MOVQ    pairs+48(FP), BX
	MOVBLZX add+56(FP), AX

tile:
	TILE(pairsx6, pairsx5, pairsx4, pairsx3, pairsx2, pairsx1)

	FLOATTILE(pairsx6, pairsx6K, 6, PAIRSW((R10)), PAIRS6, 4, DST6, BLOCK)
	FLOATTILE(pairsx5, pairsx5K, 5, PAIRSW((R10)), PAIRS5, 4, DST5, BLOCK)
	FLOATTILE(pairsx4, pairsx4K, 4, PAIRSW((R10)), PAIRS4, 4, DST4, BLOCK)
	FLOATTILE(pairsx3, pairsx3K, 3, PAIRSW((R10)), PAIRS3, 4, DST3, BLOCK)
	FLOATTILE(pairsx2, pairsx2K, 2, PAIRSW((R10)), PAIRS2, 4, DST2, BLOCK)
	FLOATTILE(pairsx1, pairsx1K, 1, PAIRSW((R10)), PAIRS1, 4, DST1, NEAR)

// func mulRowPairsAVX512(dst *float32, x, w, v *uint16, pairs int, add bool)
// Reference: that of mulBlockPairsAVX512, for one row and two panels, w (Z0, Z1) and v (Z2, Z3).
TEXT ·mulRowPairsAVX512(SB), NOSPLIT, $0-41
	MOVQ    dst+0(FP), DI
	MOVQ    x+8(FP), R12
	MOVQ    w+16(FP), R10
	MOVQ    v+24(FP), DX
	MOVQ    pairs+32(FP), R11
	MOVBLZX add+40(FP), AX
	MOVQ    $128, R8
	DST2(ZERO)
	TESTL AX, AX
	JEQ   pairsrowK
	DST2(LOAD)

pairsrowK:
	FETCH(NEAR, (R10))
	FETCH(NEAR, (DX))
	PAIRSW((R10))
	PAIRS1
	PAIRSW((DX))
	DOT_Z2
	DOT_Z3
	ADDQ  $4, R12
	ADDQ  $128, R10
	ADDQ  $128, DX
	DECQ  R11
	JNE   pairsrowK
	DST2(STORE)
	VZEROUPPER
	RET

// func narrowAVX512(dst *uint16, x *float32, n int)
// Reference: narrowRowGeneric. n is a multiple of 16, more than 0.
TEXT ·narrowAVX512(SB), NOSPLIT, $0-24
	MOVQ       dst+0(FP), DI
	MOVQ       x+8(FP), SI
	MOVQ       n+16(FP), CX
	VPTERNLOGD $0xff, Z15, Z15, Z15
	VPSRLD     $31, Z15, Z12         // 1
	VPSRLD     $17, Z15, Z13         // 0x7fff
	VPSLLD     $22, Z12, Z11         // the quiet bit

narrow16:
	VMOVUPS (SI), Z0
	VPSRLD  $16, Z0, Z1
	VPANDD  Z12, Z1, Z1
	VPADDD  Z13, Z1, Z1
	VPADDD  Z0, Z1, Z1               // + 0x7fff + the last bit that stays
	VCMPPS  $3, Z0, Z0, K1           // NaN
	VPORD   Z11, Z0, K1, Z1
	VPSRLD  $16, Z1, Z1
	VPMOVDW Z1, (DI)
	ADDQ    $64, SI
	ADDQ    $32, DI
	SUBQ    $16, CX
	JNE     narrow16
	VZEROUPPER
	RET
