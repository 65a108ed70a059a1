//go:build !purego

#include "textflag.h"
#include "words_arm64.h"
#include "tile_arm64.h"

// Tiles of a panel in bfloat16, widened exactly, with activations in float32. Sums and rows as in matmul_arm64.s; a step is a
// pair of inputs, which takes two lanes of x:
//
//	R0, R1, R2 rows of dst    R3, R4, R5 rows of x    R6 w    R7 pairs left
//	V0 … V7, V8 … V15, V16 … V23 sums    V24 zero    V25, V26, V27 x    V28, V29 w    V28 … V31 w widened
//
// A lane of w holds (even input, odd input) of an output, 16 bits each. Interleaved behind zeros they are float32.
#define EVEN(w, wide) VTRN1 w.H8, V24.H8, wide.H8
#define ODD(w, wide)  VTRN2 w.H8, V24.H8, wide.H8

// Eight outputs of a step, lanes i and j of x: sums a and b of row 0, c and d of row 1, e and f of row 2.
#define QUARTER1(p, i, j, a, b) \
	FLDPQ p, (F28, F29) \
	EVEN(V28, V30)   \
	EVEN(V29, V31)   \
	FMLAE(a, 30, 25, i) \
	FMLAE(b, 31, 25, i) \
	ODD(V28, V28)    \
	ODD(V29, V29)    \
	FMLAE(a, 28, 25, j) \
	FMLAE(b, 29, 25, j)

#define QUARTER2(p, i, j, a, b, c, d) \
	FLDPQ p, (F28, F29) \
	EVEN(V28, V30)   \
	EVEN(V29, V31)   \
	FMLAE(a, 30, 25, i) \
	FMLAE(b, 31, 25, i) \
	FMLAE(c, 30, 26, i) \
	FMLAE(d, 31, 26, i) \
	ODD(V28, V28)    \
	ODD(V29, V29)    \
	FMLAE(a, 28, 25, j) \
	FMLAE(b, 29, 25, j) \
	FMLAE(c, 28, 26, j) \
	FMLAE(d, 29, 26, j)

#define QUARTER3(p, i, j, a, b, c, d, e, f) \
	FLDPQ p, (F28, F29) \
	EVEN(V28, V30)   \
	EVEN(V29, V31)   \
	FMLAE(a, 30, 25, i) \
	FMLAE(b, 31, 25, i) \
	FMLAE(c, 30, 26, i) \
	FMLAE(d, 31, 26, i) \
	FMLAE(e, 30, 27, i) \
	FMLAE(f, 31, 27, i) \
	ODD(V28, V28)    \
	ODD(V29, V29)    \
	FMLAE(a, 28, 25, j) \
	FMLAE(b, 29, 25, j) \
	FMLAE(c, 28, 26, j) \
	FMLAE(d, 29, 26, j) \
	FMLAE(e, 28, 27, j) \
	FMLAE(f, 29, 27, j)

#define STEP1(i, j) \
	QUARTER1(0(R6), i, j, 0, 1)  \
	QUARTER1(32(R6), i, j, 2, 3) \
	QUARTER1(64(R6), i, j, 4, 5) \
	QUARTER1(96(R6), i, j, 6, 7) \
	ADD $128, R6

#define STEP2(i, j) \
	QUARTER2(0(R6), i, j, 0, 1, 8, 9)    \
	QUARTER2(32(R6), i, j, 2, 3, 10, 11) \
	QUARTER2(64(R6), i, j, 4, 5, 12, 13) \
	QUARTER2(96(R6), i, j, 6, 7, 14, 15) \
	ADD $128, R6

#define STEP3(i, j) \
	QUARTER3(0(R6), i, j, 0, 1, 8, 9, 16, 17)    \
	QUARTER3(32(R6), i, j, 2, 3, 10, 11, 18, 19) \
	QUARTER3(64(R6), i, j, 4, 5, 12, 13, 20, 21) \
	QUARTER3(96(R6), i, j, 6, 7, 14, 15, 22, 23) \
	ADD $128, R6

// func mul1BF16NEON(dst *float32, x *float32, w *uint16, pairs int)
// One row of mulBlockBF16Generic added to dst, up to the rounding of fused products.
TEXT ·mul1BF16NEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD w+16(FP), R6
	MOVD pairs+24(FP), R7
	LOADROW0(R0)
	VEOR V24.B16, V24.B16, V24.B16
	SUBS $2, R7
	BLT  rest

two:
	FMOVQ.P 16(R3), F25
	STEP1(0, 1)
	STEP1(2, 3)
	SUBS $2, R7
	BGE  two

rest:
	ADDS $2, R7
	BEQ  done
	FMOVD (R3), F25
	STEP1(0, 1)

done:
	STOREROW0(R0)
	RET

// func mul2BF16NEON(dst *float32, stride int, x *float32, xStride int, w *uint16, pairs int)
// Two rows of mulBlockBF16Generic added to dst, up to the rounding of fused products.
TEXT ·mul2BF16NEON(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD pairs+40(FP), R7
	ROWS
	LOADROW0(R0)
	LOADROW1(R1)
	VEOR V24.B16, V24.B16, V24.B16
	SUBS $2, R7
	BLT  rest

two:
	FMOVQ.P 16(R3), F25
	FMOVQ.P 16(R4), F26
	STEP2(0, 1)
	STEP2(2, 3)
	SUBS $2, R7
	BGE  two

rest:
	ADDS $2, R7
	BEQ  done
	FMOVD (R3), F25
	FMOVD (R4), F26
	STEP2(0, 1)

done:
	STOREROW0(R0)
	STOREROW1(R1)
	RET

// func mul3BF16NEON(dst *float32, stride int, x *float32, xStride int, w *uint16, pairs int)
// Three rows of mulBlockBF16Generic added to dst, up to the rounding of fused products.
TEXT ·mul3BF16NEON(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD pairs+40(FP), R7
	ROWS
	LOADROW0(R0)
	LOADROW1(R1)
	LOADROW2(R2)
	VEOR V24.B16, V24.B16, V24.B16
	SUBS $2, R7
	BLT  rest

two:
	FMOVQ.P 16(R3), F25
	FMOVQ.P 16(R4), F26
	FMOVQ.P 16(R5), F27
	STEP3(0, 1)
	STEP3(2, 3)
	SUBS $2, R7
	BGE  two

rest:
	ADDS $2, R7
	BEQ  done
	FMOVD (R3), F25
	FMOVD (R4), F26
	FMOVD (R5), F27
	STEP3(0, 1)

done:
	STOREROW0(R0)
	STOREROW1(R1)
	STOREROW2(R2)
	RET

// Pairs of bfloat16 with BFMMLA, six rows × 16 outputs. A sum holds two outputs of two rows, in the order (o, r), (o, r+1),
// (o+1, r), (o+1, r+1); w four inputs of two outputs, x four inputs of two rows:
//
//	            outputs 0, 1   2, 3   …   14, 15     four inputs
//	rows 0, 1        V0         V1    …     V7           V24
//	rows 2, 3        V8         V9    …     V15          V25
//	rows 4, 5        V16        V17   …     V23          V26
//
//	R0 dst, R1 its stride    R8 … R13 rows of x    R6 w    R7 steps of four inputs left    V27 … V31 w
//
// BFMMLA adds the first pair's two products and then the second's, as two BFDOT do: the bits are those of the other tiles.

// Sums a … h of the rows of dst at R2 and R1 + R2, which then goes on to the next two rows.
#define LOADPAIR(a, b, c, d, e, f, g, h) \
	ADD   R1, R2, R3             \
	FLDPQ (R2), (F24, F25)       \
	FLDPQ 32(R2), (F26, F27)     \
	FLDPQ (R3), (F28, F29)       \
	FLDPQ 32(R3), (F30, F31)     \
	ADD   R1, R3, R2             \
	VZIP1 V28.S4, V24.S4, a.S4   \
	VZIP2 V28.S4, V24.S4, b.S4   \
	VZIP1 V29.S4, V25.S4, c.S4   \
	VZIP2 V29.S4, V25.S4, d.S4   \
	VZIP1 V30.S4, V26.S4, e.S4   \
	VZIP2 V30.S4, V26.S4, f.S4   \
	VZIP1 V31.S4, V27.S4, g.S4   \
	VZIP2 V31.S4, V27.S4, h.S4

#define STOREPAIR(a, b, c, d, e, f, g, h) \
	ADD   R1, R2, R3             \
	VUZP1 b.S4, a.S4, V24.S4     \
	VUZP2 b.S4, a.S4, V28.S4     \
	VUZP1 d.S4, c.S4, V25.S4     \
	VUZP2 d.S4, c.S4, V29.S4     \
	VUZP1 f.S4, e.S4, V26.S4     \
	VUZP2 f.S4, e.S4, V30.S4     \
	VUZP1 h.S4, g.S4, V27.S4     \
	VUZP2 h.S4, g.S4, V31.S4     \
	FSTPQ (F24, F25), (R2)       \
	FSTPQ (F26, F27), 32(R2)     \
	FSTPQ (F28, F29), (R3)       \
	FSTPQ (F30, F31), 32(R3)     \
	ADD   R1, R3, R2

// Eight outputs, whose pairs of inputs are at p and q: sums a … d of rows 0, 1, e … h of rows 2, 3, i … l of rows 4, 5.
#define MATMUL8(p, q, a, b, c, d, e, f, g, h, i, j, k, l) \
	FLDPQ p, (F27, F28)          \
	FLDPQ q, (F29, F30)          \
	VZIP1 V29.S4, V27.S4, V31.S4 \
	VZIP2 V29.S4, V27.S4, V27.S4 \
	VZIP1 V30.S4, V28.S4, V29.S4 \
	VZIP2 V30.S4, V28.S4, V28.S4 \
	BFMMLA(a, 31, 24) \
	BFMMLA(e, 31, 25) \
	BFMMLA(i, 31, 26) \
	BFMMLA(b, 27, 24) \
	BFMMLA(f, 27, 25) \
	BFMMLA(j, 27, 26) \
	BFMMLA(c, 29, 24) \
	BFMMLA(g, 29, 25) \
	BFMMLA(k, 29, 26) \
	BFMMLA(d, 28, 24) \
	BFMMLA(h, 28, 25) \
	BFMMLA(l, 28, 26)

// func mul6PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, steps int)
// Half a panel of six rows of mulBlockBF16Generic added to dst, up to the rounding of fused products and flushed denormals.
// xStride counts pairs.
TEXT ·mul6PairsBF16(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R8
	MOVD xStride+24(FP), R13
	MOVD w+32(FP), R6
	MOVD steps+40(FP), R7
	LSL  $2, R1
	ADD  R13<<2, R8, R9
	ADD  R13<<2, R9, R10
	ADD  R13<<2, R10, R11
	ADD  R13<<2, R11, R12
	ADD  R13<<2, R12, R13
	MOVD R0, R2
	LOADPAIR(V0, V1, V2, V3, V4, V5, V6, V7)
	LOADPAIR(V8, V9, V10, V11, V12, V13, V14, V15)
	LOADPAIR(V16, V17, V18, V19, V20, V21, V22, V23)

step:
	FMOVD.P 8(R8), F24
	FMOVD.P 8(R10), F25
	FMOVD.P 8(R12), F26
	VLD1.P  8(R9), V24.D[1]
	VLD1.P  8(R11), V25.D[1]
	VLD1.P  8(R13), V26.D[1]
	MATMUL8(0(R6), 128(R6), 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19)
	MATMUL8(32(R6), 160(R6), 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23)
	ADD  $256, R6
	SUBS $1, R7
	BNE  step
	MOVD R0, R2
	STOREPAIR(V0, V1, V2, V3, V4, V5, V6, V7)
	STOREPAIR(V8, V9, V10, V11, V12, V13, V14, V15)
	STOREPAIR(V16, V17, V18, V19, V20, V21, V22, V23)
	RET
