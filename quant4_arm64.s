//go:build !purego

#include "textflag.h"
#include "words_arm64.h"

// Tiles of four rows of int8 and int4 groups, with DotProd and with I8MM. A sum of a group is an exact integer; then
// dst += float32(sum) · (scale of w · scale of x), each operation rounded. A group is walked in four passes of eight outputs:
//
//	R0 … R3 rows of dst    R4 … R7 rows of x    R8 w    R9 groups left    R10 scales of w    R11 passes left
//	V0 … V7 sums    V8 … V15 x    V16 … V23 w    V24, V25 scales of w    V26, V27 temporary    V31 zero
//	V30 what takes the weights out of their bytes
//
// The layout of a group is described in quant_arm64.s.

// The pointers to the rows, from R0 dst, R1 its stride in float32, R4 x and R5 its stride in groups.
#define ROWS4 \
	ADD  R1<<3, R0, R2 \
	ADD  R1<<2, R2, R3 \
	ADD  R1<<2, R0, R1 \
	MOVD $40, R6       \
	MUL  R6, R5        \
	ADD  R5<<1, R4, R6 \
	ADD  R5, R6, R7    \
	ADD  R4, R5, R5

// The next group: its weights begin w bytes after the end of the columns just read.
#define NEXTGROUP(w) \
	SUB  $128, R0 \
	SUB  $128, R1 \
	SUB  $128, R2 \
	SUB  $128, R3 \
	ADD  $40, R4  \
	ADD  $40, R5  \
	ADD  $40, R6  \
	ADD  $40, R7  \
	ADD  $w, R8

// V24, V25 = the scales of the pass's outputs.
#define LOADSCALES \
	FMOVQ.P 16(R10), F26          \
	VZIP1   V26.H8, V31.H8, V24.H8 \
	VZIP2   V26.H8, V31.H8, V25.H8

// Sums a and b of eight outputs into a row of dst; the scale of x is lane i of s.
#define SCALEROW(row, a, b, s, i) \
	FMULE(26, 24, s, i) \
	FMULE(27, 25, s, i) \
	SCVTFV(a, a)        \
	SCVTFV(b, b)        \
	FLDPQ   (row), (F18, F19) \
	FMULV(26, a, 26)    \
	FMULV(27, b, 27)    \
	FADDV(18, 18, 26)   \
	FADDV(19, 19, 27)   \
	FSTPQ.P (F18, F19), 32(row)

// DotProd. A sum holds four outputs of a row, w four inputs of four outputs:
//
//	       outputs 0 … 3   4 … 7     inputs 0 … 15   16 … 31    scale, bias
//	row 0        V0          V1            V8           V9           V20
//	row 1        V2          V3            V10          V11          V21
//	row 2        V4          V5            V12          V13          V22
//	row 3        V6          V7            V14          V15          V23

#define LOADX \
	FLDPQ (R4), (F8, F9)   \
	FLDPQ (R5), (F10, F11) \
	FLDPQ (R6), (F12, F13) \
	FLDPQ (R7), (F14, F15) \
	FMOVD 32(R4), F20      \
	FMOVD 32(R5), F21      \
	FMOVD 32(R6), F22      \
	FMOVD 32(R7), F23

#define SCALEROWS \
	LOADSCALES                \
	SCALEROW(R0, 0, 1, 20, 0) \
	SCALEROW(R1, 2, 3, 21, 0) \
	SCALEROW(R2, 4, 5, 22, 0) \
	SCALEROW(R3, 6, 7, 23, 0)

// Four inputs, lane i of the rows a … d of x.
#define DOT(w0, w1, a, b, c, d, i) \
	SDOTE(0, w0, a, i) \
	SDOTE(1, w1, a, i) \
	SDOTE(2, w0, b, i) \
	SDOTE(3, w1, b, i) \
	SDOTE(4, w0, c, i) \
	SDOTE(5, w1, c, i) \
	SDOTE(6, w0, d, i) \
	SDOTE(7, w1, d, i)

// Four inputs at p, as signed bytes in V16, V17 or V18, V19.
#define INT8W(p, f0, f1, v0, v1) \
	FLDPQ p, (f0, f1)           \
	VEOR  V30.B16, v0.B16, v0.B16 \
	VEOR  V30.B16, v1.B16, v1.B16

#define INT8DOT2(p, q, a, b, c, d, i, j) \
	INT8W(p, F16, F17, V16, V17)    \
	INT8W(q, F18, F19, V18, V19)    \
	DOT(16, 17, a, b, c, d, i)      \
	DOT(18, 19, a, b, c, d, j)

// func mul4Int8DotProd(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)
// Four rows of mulBlockInt8Generic added to dst, the same bits.
TEXT ·mul4Int8DotProd(SB), NOSPLIT, $0-48
	MOVD  dst+0(FP), R0
	MOVD  stride+8(FP), R1
	MOVD  x+16(FP), R4
	MOVD  xStride+24(FP), R5
	MOVD  w+32(FP), R8
	MOVD  groups+40(FP), R9
	ROWS4
	VMOVI $128, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16

group:
	LOADX
	MOVD R8, R10
	MOVD $4, R11

pass:
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	INT8DOT2(64(R8), 192(R8), 8, 10, 12, 14, 0, 1)
	INT8DOT2(320(R8), 448(R8), 8, 10, 12, 14, 2, 3)
	INT8DOT2(576(R8), 704(R8), 9, 11, 13, 15, 0, 1)
	INT8DOT2(832(R8), 960(R8), 9, 11, 13, 15, 2, 3)
	SCALEROWS
	ADD  $32, R8
	SUBS $1, R11
	BNE  pass
	NEXTGROUP(960)
	SUBS $1, R9
	BNE  group
	RET

// Eight inputs at p: V16, V17 = the lower halves of w, V18, V19 = the upper.
#define INT4DOT(p, i) \
	FLDPQ p, (F18, F19)               \
	VAND  V30.B16, V18.B16, V16.B16   \
	VAND  V30.B16, V19.B16, V17.B16   \
	VUSHR $4, V18.B16, V18.B16        \
	VUSHR $4, V19.B16, V19.B16        \
	DOT(16, 17, 8, 10, 12, 14, i)     \
	DOT(18, 19, 9, 11, 13, 15, i)

// func mul4Int4DotProd(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)
// Four rows of mulBlockInt4Generic added to dst, the same bits.
TEXT ·mul4Int4DotProd(SB), NOSPLIT, $0-48
	MOVD  dst+0(FP), R0
	MOVD  stride+8(FP), R1
	MOVD  x+16(FP), R4
	MOVD  xStride+24(FP), R5
	MOVD  w+32(FP), R8
	MOVD  groups+40(FP), R9
	ROWS4
	VMOVI $15, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16

group:
	LOADX
	MOVD R8, R10
	MOVD $4, R11

pass:
	VDUP V20.S[1], V0.S4
	VDUP V20.S[1], V1.S4
	VDUP V21.S[1], V2.S4
	VDUP V21.S[1], V3.S4
	VDUP V22.S[1], V4.S4
	VDUP V22.S[1], V5.S4
	VDUP V23.S[1], V6.S4
	VDUP V23.S[1], V7.S4
	INT4DOT(64(R8), 0)
	INT4DOT(192(R8), 1)
	INT4DOT(320(R8), 2)
	INT4DOT(448(R8), 3)
	SCALEROWS
	ADD  $32, R8
	SUBS $1, R11
	BNE  pass
	NEXTGROUP(448)
	SUBS $1, R9
	BNE  group
	RET

// I8MM. A sum holds two outputs of two rows, in the order (o, r), (o, r+1), (o+1, r), (o+1, r+1); w eight inputs of two outputs,
// without their sign, and x eight inputs of two rows:
//
//	            outputs 0, 1   2, 3   4, 5   6, 7     inputs 0 … 7   8 … 15   16 … 23   24 … 31    scales, biases
//	rows 0, 1        V0         V2     V4     V6            V8          V9       V10       V11           V28
//	rows 2, 3        V1         V3     V5     V7            V12         V13      V14       V15           V29

#define ZIPX(ra, rb, x0, x1, x2, x3, scales) \
	FLDPQ (ra), (F16, F17)             \
	FLDPQ (rb), (F18, F19)             \
	FMOVD 32(ra), F20                  \
	FMOVD 32(rb), F21                  \
	VZIP1 V18.D2, V16.D2, x0.D2        \
	VZIP2 V18.D2, V16.D2, x1.D2        \
	VZIP1 V19.D2, V17.D2, x2.D2        \
	VZIP2 V19.D2, V17.D2, x3.D2        \
	VZIP1 V21.S4, V20.S4, scales.S4

#define ZIPXS \
	ZIPX(R4, R5, V8, V9, V10, V11, V28)   \
	ZIPX(R6, R7, V12, V13, V14, V15, V29)

// The sums of a pass begin with the biases.
#define BIASES \
	VDUP V28.D[1], V0.D2 \
	VDUP V29.D[1], V1.D2 \
	VDUP V28.D[1], V2.D2 \
	VDUP V29.D[1], V3.D2 \
	VDUP V28.D[1], V4.D2 \
	VDUP V29.D[1], V5.D2 \
	VDUP V28.D[1], V6.D2 \
	VDUP V29.D[1], V7.D2

// V20 … V23 = two rows of w, at p and q, as pairs of outputs.
#define ZIPW(p, q) \
	FLDPQ p, (F16, F17)         \
	FLDPQ q, (F18, F19)         \
	VZIP1 V18.S4, V16.S4, V20.S4 \
	VZIP2 V18.S4, V16.S4, V21.S4 \
	VZIP1 V19.S4, V17.S4, V22.S4 \
	VZIP2 V19.S4, V17.S4, V23.S4

#define MATMUL(w0, w1, w2, w3, a, b) \
	USMMLA(0, w0, a) \
	USMMLA(1, w0, b) \
	USMMLA(2, w1, a) \
	USMMLA(3, w1, b) \
	USMMLA(4, w2, a) \
	USMMLA(5, w2, b) \
	USMMLA(6, w3, a) \
	USMMLA(7, w3, b)

// V20 … V23 = the sums of two rows, from those in a, b, c and d.
#define UNZIP(a, b, c, d) \
	VUZP1 b.S4, a.S4, V20.S4 \
	VUZP1 d.S4, c.S4, V21.S4 \
	VUZP2 b.S4, a.S4, V22.S4 \
	VUZP2 d.S4, c.S4, V23.S4

#define SCALEPAIRS \
	LOADSCALES                  \
	UNZIP(V0, V2, V4, V6)       \
	SCALEROW(R0, 20, 21, 28, 0) \
	SCALEROW(R1, 22, 23, 28, 1) \
	UNZIP(V1, V3, V5, V7)       \
	SCALEROW(R2, 20, 21, 29, 0) \
	SCALEROW(R3, 22, 23, 29, 1)

// func mul4Int8I8MM(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)
// Four rows of mulBlockInt8Generic added to dst, the same bits.
TEXT ·mul4Int8I8MM(SB), NOSPLIT, $0-48
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD x+16(FP), R4
	MOVD xStride+24(FP), R5
	MOVD w+32(FP), R8
	MOVD groups+40(FP), R9
	ROWS4
	VEOR V31.B16, V31.B16, V31.B16

group:
	ZIPXS
	MOVD R8, R10
	MOVD $4, R11

pass:
	BIASES
	ZIPW(64(R8), 192(R8))
	MATMUL(20, 21, 22, 23, 8, 12)
	ZIPW(320(R8), 448(R8))
	MATMUL(20, 21, 22, 23, 9, 13)
	ZIPW(576(R8), 704(R8))
	MATMUL(20, 21, 22, 23, 10, 14)
	ZIPW(832(R8), 960(R8))
	MATMUL(20, 21, 22, 23, 11, 15)
	SCALEPAIRS
	ADD  $32, R8
	SUBS $1, R11
	BNE  pass
	NEXTGROUP(960)
	SUBS $1, R9
	BNE  group
	RET

// V16 … V19 = the lower halves of V20 … V23, V20 … V23 = the upper.
#define HALVES \
	VAND  V30.B16, V20.B16, V16.B16 \
	VAND  V30.B16, V21.B16, V17.B16 \
	VAND  V30.B16, V22.B16, V18.B16 \
	VAND  V30.B16, V23.B16, V19.B16 \
	VUSHR $4, V20.B16, V20.B16      \
	VUSHR $4, V21.B16, V21.B16      \
	VUSHR $4, V22.B16, V22.B16      \
	VUSHR $4, V23.B16, V23.B16

// func mul4Int4I8MM(dst *float32, stride int, x *quantGroup, xStride int, w *byte, groups int)
// Four rows of mulBlockInt4Generic added to dst, the same bits.
TEXT ·mul4Int4I8MM(SB), NOSPLIT, $0-48
	MOVD  dst+0(FP), R0
	MOVD  stride+8(FP), R1
	MOVD  x+16(FP), R4
	MOVD  xStride+24(FP), R5
	MOVD  w+32(FP), R8
	MOVD  groups+40(FP), R9
	ROWS4
	VMOVI $15, V30.B16
	VEOR  V31.B16, V31.B16, V31.B16

group:
	ZIPXS
	MOVD R8, R10
	MOVD $4, R11

pass:
	BIASES
	ZIPW(64(R8), 192(R8))
	HALVES
	MATMUL(16, 17, 18, 19, 8, 12)
	MATMUL(20, 21, 22, 23, 10, 14)
	ZIPW(320(R8), 448(R8))
	HALVES
	MATMUL(16, 17, 18, 19, 9, 13)
	MATMUL(20, 21, 22, 23, 11, 15)
	SCALEPAIRS
	ADD  $32, R8
	SUBS $1, R11
	BNE  pass
	NEXTGROUP(448)
	SUBS $1, R9
	BNE  group
	RET
