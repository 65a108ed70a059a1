//go:build !purego

#include "textflag.h"
#include "words_arm64.h"
#include "tile_arm64.h"

// One row of int8 and int4 groups, with and without DotProd, and the groups of the activations. A sum of a group is an exact
// integer; then dst += float32(sum) · (scale of w · scale of x), each operation rounded.
//
//	R0 dst    R3 x    R6 w    R7 groups left    R9 scales of w
//	V30 what takes the weights out of their bytes    V31 zero
//
// A group of w is 64 bytes of scales and then rows of 128 bytes: four inputs of 32 outputs, a column of 16 bytes for four outputs.
// A lane of int8 is q+128, which VEOR with 0x80 turns into q; one of int4 is q+8, whose 8 the bias of x takes away.

// The 16-bit halves of w, bfloat16, as float32: of lanes 0 … 3 and 4 … 7.
#define WIDENLO(w, wide) VZIP1 w.H8, V31.H8, wide.H8
#define WIDENHI(w, wide) VZIP2 w.H8, V31.H8, wide.H8

// V24 = dst column, V0 = its sums: scaled by the group of w, next at R9, and of x, V29 lane 0.
#define SCALECOLUMN \
	FMOVD.P 8(R9), F25     \
	WIDENLO(V25, V25)      \
	FMULE(25, 25, 29, 0)   \
	SCVTFV(0, 0)           \
	FMOVQ   (R10), F24     \
	FMULV(0, 0, 25)        \
	FADDV(24, 24, 0)       \
	FMOVQ.P F24, 16(R10)

// Without DotProd a column is computed after the other:
//
//	R8 its place in w    R10 in dst    R11 columns left
//	V16 … V23 x, four inputs each, four times    V0, V1 sums    V24 … V27 w and products    V28 bias    V29 scale, bias of x
#define LOADX \
	VLD1R.P 4(R3), [V16.S4] \
	VLD1R.P 4(R3), [V17.S4] \
	VLD1R.P 4(R3), [V18.S4] \
	VLD1R.P 4(R3), [V19.S4] \
	VLD1R.P 4(R3), [V20.S4] \
	VLD1R.P 4(R3), [V21.S4] \
	VLD1R.P 4(R3), [V22.S4] \
	VLD1R.P 4(R3), [V23.S4] \
	FMOVD.P 8(R3), F29

// Eight inputs of a column, at p and q: two products of ±127 · ±128 fit in 16 bits. ADDUP is SADDLP or SADALP.
#define INT8COLUMN(p, q, x0, x1, ADDUP) \
	FMOVQ p, F24                  \
	FMOVQ q, F25                  \
	VEOR  V30.B16, V24.B16, V24.B16 \
	VEOR  V30.B16, V25.B16, V25.B16 \
	SMULL(26, 24, x0)             \
	SMULL2(27, 24, x0)            \
	SMLAL(26, 25, x1)             \
	SMLAL2(27, 25, x1)            \
	ADDUP(0, 26)                  \
	ADDUP(1, 27)

// func mul1Int8NEON(dst *float32, x *quantGroup, w *byte, groups int)
// One row of mulBlockInt8Generic added to dst, the same bits.
TEXT ·mul1Int8NEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R3
	MOVD  w+16(FP), R6
	MOVD  groups+24(FP), R7
	VMOVI $128, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16

group:
	LOADX
	MOVD R6, R9
	ADD  $64, R6, R8
	MOVD R0, R10
	MOVD $8, R11

column:
	INT8COLUMN(0(R8), 128(R8), 16, 17, SADDLP)
	INT8COLUMN(256(R8), 384(R8), 18, 19, SADALP)
	INT8COLUMN(512(R8), 640(R8), 20, 21, SADALP)
	INT8COLUMN(768(R8), 896(R8), 22, 23, SADALP)
	VADDP V1.S4, V0.S4, V0.S4
	SCALECOLUMN
	ADD   $16, R8
	SUBS  $1, R11
	BNE   column
	ADD   $1088, R6
	SUBS  $1, R7
	BNE   group
	RET

// Eight inputs of a column, at p. V26 and V27 add up a whole group: at most 8 · 127 · 15 in 16 bits. MUL and MUL2 are SMULL and
// SMULL2 in the first step, SMLAL and SMLAL2 in the others.
#define INT4COLUMN(p, x0, x1, MUL, MUL2) \
	FMOVQ p, F24                    \
	VAND  V30.B16, V24.B16, V25.B16 \
	VUSHR $4, V24.B16, V24.B16      \
	MUL(26, 25, x0)                 \
	MUL2(27, 25, x0)                \
	SMLAL(26, 24, x1)               \
	SMLAL2(27, 24, x1)

// func mul1Int4NEON(dst *float32, x *quantGroup, w *byte, groups int)
// One row of mulBlockInt4Generic added to dst, the same bits.
TEXT ·mul1Int4NEON(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R3
	MOVD  w+16(FP), R6
	MOVD  groups+24(FP), R7
	VMOVI $15, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16

group:
	LOADX
	VDUP V29.S[1], V28.S4
	MOVD R6, R9
	ADD  $64, R6, R8
	MOVD R0, R10
	MOVD $8, R11

column:
	INT4COLUMN(0(R8), 16, 20, SMULL, SMULL2)
	INT4COLUMN(128(R8), 17, 21, SMLAL, SMLAL2)
	INT4COLUMN(256(R8), 18, 22, SMLAL, SMLAL2)
	INT4COLUMN(384(R8), 19, 23, SMLAL, SMLAL2)
	VADDP V27.H8, V26.H8, V0.H8
	SADDLP(0, 0)
	VADD  V28.S4, V0.S4, V0.S4
	SCALECOLUMN
	ADD   $16, R8
	SUBS  $1, R11
	BNE   column
	ADD   $576, R6
	SUBS  $1, R7
	BNE   group
	RET

// With DotProd all 32 outputs go together:
//
//	V0 … V7 sums of the group    V8 … V15 dst    V16, V17 x    V18 … V25 w    V26 scale, bias of x    V27 … V29 temporary
#define LOADW \
	LOAD8(R6, F18, F19, F20, F21, F22, F23, F24, F25) \
	ADD $128, R6

// Lane i of x, four inputs.
#define INT8STEP(x, i) \
	LOADW                           \
	VEOR V30.B16, V18.B16, V18.B16  \
	VEOR V30.B16, V19.B16, V19.B16  \
	VEOR V30.B16, V20.B16, V20.B16  \
	VEOR V30.B16, V21.B16, V21.B16  \
	VEOR V30.B16, V22.B16, V22.B16  \
	VEOR V30.B16, V23.B16, V23.B16  \
	VEOR V30.B16, V24.B16, V24.B16  \
	VEOR V30.B16, V25.B16, V25.B16  \
	SDOTE(0, 18, x, i) \
	SDOTE(1, 19, x, i) \
	SDOTE(2, 20, x, i) \
	SDOTE(3, 21, x, i) \
	SDOTE(4, 22, x, i) \
	SDOTE(5, 23, x, i) \
	SDOTE(6, 24, x, i) \
	SDOTE(7, 25, x, i)

// V27 = the lower halves of w, w = the upper.
#define INT4COLUMNS(w, n, sum, i) \
	VAND  V30.B16, w.B16, V27.B16 \
	VUSHR $4, w.B16, w.B16        \
	SDOTE(sum, 27, 16, i)         \
	SDOTE(sum, n, 17, i)

// Lane i of both halves of x, eight inputs.
#define INT4STEP(i) \
	LOADW                       \
	INT4COLUMNS(V18, 18, 0, i) \
	INT4COLUMNS(V19, 19, 1, i) \
	INT4COLUMNS(V20, 20, 2, i) \
	INT4COLUMNS(V21, 21, 3, i) \
	INT4COLUMNS(V22, 22, 4, i) \
	INT4COLUMNS(V23, 23, 5, i) \
	INT4COLUMNS(V24, 24, 6, i) \
	INT4COLUMNS(V25, 25, 7, i)

// Sums a and b of eight outputs, whose scales are at p, into c and d of dst.
#define SCALE8(p, a, b, c, d) \
	FMOVQ p, F27         \
	WIDENLO(V27, V28)    \
	WIDENHI(V27, V29)    \
	FMULE(28, 28, 26, 0) \
	FMULE(29, 29, 26, 0) \
	SCVTFV(a, a)         \
	SCVTFV(b, b)         \
	FMULV(28, a, 28)     \
	FMULV(29, b, 29)     \
	FADDV(c, c, 28)      \
	FADDV(d, d, 29)

#define SCALE32 \
	SCALE8(0(R9), 0, 1, 8, 9)    \
	SCALE8(16(R9), 2, 3, 10, 11) \
	SCALE8(32(R9), 4, 5, 12, 13) \
	SCALE8(48(R9), 6, 7, 14, 15)

// func mul1Int8DotProd(dst *float32, x *quantGroup, w *byte, groups int)
// One row of mulBlockInt8Generic added to dst, the same bits.
TEXT ·mul1Int8DotProd(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R3
	MOVD  w+16(FP), R6
	MOVD  groups+24(FP), R7
	VMOVI $128, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16
	LOADROW1(R0)

group:
	FLDPQ (R3), (F16, F17)
	FMOVD 32(R3), F26
	ADD   $40, R3
	MOVD  R6, R9
	ADD   $64, R6
	VEOR  V0.B16, V0.B16, V0.B16
	VEOR  V1.B16, V1.B16, V1.B16
	VEOR  V2.B16, V2.B16, V2.B16
	VEOR  V3.B16, V3.B16, V3.B16
	VEOR  V4.B16, V4.B16, V4.B16
	VEOR  V5.B16, V5.B16, V5.B16
	VEOR  V6.B16, V6.B16, V6.B16
	VEOR  V7.B16, V7.B16, V7.B16
	INT8STEP(16, 0)
	INT8STEP(16, 1)
	INT8STEP(16, 2)
	INT8STEP(16, 3)
	INT8STEP(17, 0)
	INT8STEP(17, 1)
	INT8STEP(17, 2)
	INT8STEP(17, 3)
	SCALE32
	SUBS  $1, R7
	BNE   group
	STOREROW1(R0)
	RET

// func mul1Int4DotProd(dst *float32, x *quantGroup, w *byte, groups int)
// One row of mulBlockInt4Generic added to dst, the same bits.
TEXT ·mul1Int4DotProd(SB), NOSPLIT, $0-32
	MOVD  dst+0(FP), R0
	MOVD  x+8(FP), R3
	MOVD  w+16(FP), R6
	MOVD  groups+24(FP), R7
	VMOVI $15, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16
	LOADROW1(R0)

group:
	FLDPQ (R3), (F16, F17)
	FMOVD 32(R3), F26
	ADD   $40, R3
	MOVD  R6, R9
	ADD   $64, R6
	VDUP  V26.S[1], V0.S4
	VDUP  V26.S[1], V1.S4
	VDUP  V26.S[1], V2.S4
	VDUP  V26.S[1], V3.S4
	VDUP  V26.S[1], V4.S4
	VDUP  V26.S[1], V5.S4
	VDUP  V26.S[1], V6.S4
	VDUP  V26.S[1], V7.S4
	INT4STEP(0)
	INT4STEP(1)
	INT4STEP(2)
	INT4STEP(3)
	SCALE32
	SUBS  $1, R7
	BNE   group
	STOREROW1(R0)
	RET
