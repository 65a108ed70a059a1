//go:build !purego

#include "textflag.h"
#include "words_arm64.h"
#include "tile_arm64.h"

// Tiles of a panel in float32 and bfloat16. A tile is 1 … 3 rows × 32 outputs whose sums stay in registers, four outputs in
// each, while it walks the panel: up to 24 independent chains, more than four pipes of latency four can hold.
//
//	       w[k, 0…3]  w[k, 4…7]   …   w[k, 28…31]
//	x[0, k]    V0         V1      …       V7
//	x[1, k]    V8         V9      …       V15
//	x[2, k]    V16        V17     …       V23
//
//	R0, R1, R2 rows of dst    R3, R4, R5 rows of x    R6 w    R7 steps left
//	V24 … V27 w (V16 … V23 in a tile of one row)    V28, V29, V30 x, a step in each lane
//
// A step is one input, or a pair of them in bfloat16. Four steps go together, with one load of each row of x; the rest one by
// one, in lane 0. The slices are as long as the wrapper promises; nothing is checked here.

// One step, lane i of x, by an instruction that multiplies four 32-bit lanes of w with one of x: FMLAE for float32, BFDOTE for
// pairs of bfloat16.
#define STEP1(MUL, i) \
	LOAD8(R6, F16, F17, F18, F19, F20, F21, F22, F23) \
	ADD $128, R6 \
	MUL(0, 16, 28, i) \
	MUL(1, 17, 28, i) \
	MUL(2, 18, 28, i) \
	MUL(3, 19, 28, i) \
	MUL(4, 20, 28, i) \
	MUL(5, 21, 28, i) \
	MUL(6, 22, 28, i) \
	MUL(7, 23, 28, i)

// Eight outputs of a step: sums a and b of row 0, c and d of row 1, e and f of row 2.
#define QUARTER2(MUL, i, w0, w1, a, b, c, d) \
	MUL(a, w0, 28, i) \
	MUL(b, w1, 28, i) \
	MUL(c, w0, 29, i) \
	MUL(d, w1, 29, i)

#define QUARTER3(MUL, i, w0, w1, a, b, c, d, e, f) \
	MUL(a, w0, 28, i) \
	MUL(b, w1, 28, i) \
	MUL(c, w0, 29, i) \
	MUL(d, w1, 29, i) \
	MUL(e, w0, 30, i) \
	MUL(f, w1, 30, i)

#define STEP2(MUL, i) \
	FLDPQ 0(R6), (F24, F25)  \
	FLDPQ 32(R6), (F26, F27) \
	QUARTER2(MUL, i, 24, 25, 0, 1, 8, 9)   \
	FLDPQ 64(R6), (F24, F25) \
	QUARTER2(MUL, i, 26, 27, 2, 3, 10, 11) \
	FLDPQ 96(R6), (F26, F27) \
	ADD   $128, R6           \
	QUARTER2(MUL, i, 24, 25, 4, 5, 12, 13) \
	QUARTER2(MUL, i, 26, 27, 6, 7, 14, 15)

#define STEP3(MUL, i) \
	FLDPQ 0(R6), (F24, F25)  \
	FLDPQ 32(R6), (F26, F27) \
	QUARTER3(MUL, i, 24, 25, 0, 1, 8, 9, 16, 17)   \
	FLDPQ 64(R6), (F24, F25) \
	QUARTER3(MUL, i, 26, 27, 2, 3, 10, 11, 18, 19) \
	FLDPQ 96(R6), (F26, F27) \
	ADD   $128, R6           \
	QUARTER3(MUL, i, 24, 25, 4, 5, 12, 13, 20, 21) \
	QUARTER3(MUL, i, 26, 27, 6, 7, 14, 15, 22, 23)

// Tiles of one, two and three rows whose steps are MUL's.
#define TILE1(MUL) \
	LOADROW0(R0)    \
	SUBS $4, R7     \
	BLT  rest       \
four: \
	FMOVQ.P 16(R3), F28 \
	STEP1(MUL, 0)   \
	STEP1(MUL, 1)   \
	STEP1(MUL, 2)   \
	STEP1(MUL, 3)   \
	SUBS $4, R7     \
	BGE  four       \
rest: \
	ADDS $4, R7     \
	BEQ  done       \
one: \
	FMOVS.P 4(R3), F28 \
	STEP1(MUL, 0)   \
	SUBS $1, R7     \
	BNE  one        \
done: \
	STOREROW0(R0)   \
	RET

#define TILE2(MUL) \
	ROWS            \
	LOADROW0(R0)    \
	LOADROW1(R1)    \
	SUBS $4, R7     \
	BLT  rest       \
four: \
	FMOVQ.P 16(R3), F28 \
	FMOVQ.P 16(R4), F29 \
	STEP2(MUL, 0)   \
	STEP2(MUL, 1)   \
	STEP2(MUL, 2)   \
	STEP2(MUL, 3)   \
	SUBS $4, R7     \
	BGE  four       \
rest: \
	ADDS $4, R7     \
	BEQ  done       \
one: \
	FMOVS.P 4(R3), F28 \
	FMOVS.P 4(R4), F29 \
	STEP2(MUL, 0)   \
	SUBS $1, R7     \
	BNE  one        \
done: \
	STOREROW0(R0)   \
	STOREROW1(R1)   \
	RET

#define TILE3(MUL) \
	ROWS            \
	LOADROW0(R0)    \
	LOADROW1(R1)    \
	LOADROW2(R2)    \
	SUBS $4, R7     \
	BLT  rest       \
four: \
	FMOVQ.P 16(R3), F28 \
	FMOVQ.P 16(R4), F29 \
	FMOVQ.P 16(R5), F30 \
	STEP3(MUL, 0)   \
	STEP3(MUL, 1)   \
	STEP3(MUL, 2)   \
	STEP3(MUL, 3)   \
	SUBS $4, R7     \
	BGE  four       \
rest: \
	ADDS $4, R7     \
	BEQ  done       \
one: \
	FMOVS.P 4(R3), F28 \
	FMOVS.P 4(R4), F29 \
	FMOVS.P 4(R5), F30 \
	STEP3(MUL, 0)   \
	SUBS $1, R7     \
	BNE  one        \
done: \
	STOREROW0(R0)   \
	STOREROW1(R1)   \
	STOREROW2(R2)   \
	RET

// func mul1F32NEON(dst *float32, x *float32, w *float32, k int)
// One row of mulBlockF32Generic added to dst, up to the rounding of fused products.
TEXT ·mul1F32NEON(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD w+16(FP), R6
	MOVD k+24(FP), R7
	TILE1(FMLAE)

// func mul2F32NEON(dst *float32, stride int, x *float32, xStride int, w *float32, k int)
// Two rows of mulBlockF32Generic added to dst, up to the rounding of fused products.
TEXT ·mul2F32NEON(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD k+40(FP), R7
	TILE2(FMLAE)

// func mul3F32NEON(dst *float32, stride int, x *float32, xStride int, w *float32, k int)
// Three rows of mulBlockF32Generic added to dst, up to the rounding of fused products.
TEXT ·mul3F32NEON(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD k+40(FP), R7
	TILE3(FMLAE)

// func mul1PairsBF16(dst *float32, x *uint16, w *uint16, pairs int)
// One row of mulBlockBF16Generic added to dst, up to the rounding of fused products and flushed denormals.
TEXT ·mul1PairsBF16(SB), NOSPLIT, $0-32
	MOVD dst+0(FP), R0
	MOVD x+8(FP), R3
	MOVD w+16(FP), R6
	MOVD pairs+24(FP), R7
	TILE1(BFDOTE)

// func mul2PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, pairs int)
// Two rows of mulBlockBF16Generic added to dst, up to the rounding of fused products and flushed denormals. xStride counts pairs.
TEXT ·mul2PairsBF16(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD pairs+40(FP), R7
	TILE2(BFDOTE)

// func mul3PairsBF16(dst *float32, stride int, x *uint16, xStride int, w *uint16, pairs int)
// Three rows of mulBlockBF16Generic added to dst, up to the rounding of fused products and flushed denormals. xStride counts pairs.
TEXT ·mul3PairsBF16(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R3
	MOVD xStride+24(FP), R4
	MOVD w+32(FP), R6
	MOVD pairs+40(FP), R7
	TILE3(BFDOTE)

