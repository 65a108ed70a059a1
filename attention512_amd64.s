//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// The sums of attention on AVX-512 (mixShape says which): a turn is of one to four or six queries, whose sums with a band of 64, 32 or
// up to 16 elements of the rows of w stay in registers while all rows pass. Each sum is a chain of fused multiply-adds, in
// the order of the rows. No count is zero.
//
//	         w[s, 0…15]  w[s, 16…31]  w[s, 32…47]  w[s, 48…63]
//	query 0      Z0          Z6          Z16          Z22
//	 ⋮
//	query 5      Z5          Z11         Z21          Z27
//
//	DI dst, R9 its stride in bytes, AX that of the fourth query   SI p, R8 its stride in bytes   DX w at the band   BX the shape
//	R11 a row of w, R10 to the next   R12 p, R15 that of the fourth query   R13 rows left
//	CX lanes left   R14 from the end of a panel to the beginning of the next
//
// Rows are fetched AHEAD: the hardware alone stops at every page. A fetch of what is not there is nothing.
#define AHEAD 6144

#define FETCH1 \
	PREFETCHT0 AHEAD(R11)

#define FETCH2 \
	FETCH1                      \
	PREFETCHT0 (AHEAD+64)(R11)

#define FETCH4 \
	FETCH2                      \
	PREFETCHT0 (AHEAD+128)(R11) \
	PREFETCHT0 (AHEAD+192)(R11)

// Sixteen elements of a row; MASKED those that K1 names, the others are zero.
#define WIDEF32(m) \
	VMOVUPS m, Z15

#define MASKEDF32(m) \
	VMOVUPS.Z m, K1, Z15

#define WIDEF16(m) \
	VCVTPH2PS m, Z15

#define MASKEDF16(m) \
	VCVTPH2PS.Z m, K1, Z15

#define WIDEINT8(m) \
	VPMOVSXBD m, Z15 \
	VCVTDQ2PS Z15, Z15

#define MASKEDINT8(m) \
	VPMOVSXBD.Z m, K1, Z15 \
	VCVTDQ2PS   Z15, Z15

// What the queries multiply a row with.
#define P1 \
	VBROADCASTSS (R12), Z12

#define P2 \
	P1                            \
	VBROADCASTSS (R12)(R8*1), Z13

#define P3 \
	P2                            \
	VBROADCASTSS (R12)(R8*2), Z14

#define P4 \
	P3                            \
	VBROADCASTSS (R15), Z28

#define P6 \
	P4                            \
	VBROADCASTSS (R12)(R8*4), Z29 \
	VBROADCASTSS (R15)(R8*2), Z30

#define DOT1(a, b, c, d, e, f) \
	VFMADD231PS Z15, Z12, a

#define DOT2(a, b, c, d, e, f) \
	DOT1(a, b, c, d, e, f)  \
	VFMADD231PS Z15, Z13, b

#define DOT3(a, b, c, d, e, f) \
	DOT2(a, b, c, d, e, f)  \
	VFMADD231PS Z15, Z14, c

#define DOT4(a, b, c, d, e, f) \
	DOT3(a, b, c, d, e, f)  \
	VFMADD231PS Z15, Z28, d

#define DOT6(a, b, c, d, e, f) \
	DOT4(a, b, c, d, e, f)  \
	VFMADD231PS Z15, Z29, e \
	VFMADD231PS Z15, Z30, f

// Sums from and to memory, those that K1 names.
#define GET1(off, a, b, c, d, e, f) \
	VMOVUPS.Z off(DI), K1, a

#define GET2(off, a, b, c, d, e, f) \
	GET1(off, a, b, c, d, e, f)    \
	VMOVUPS.Z off(DI)(R9*1), K1, b

#define GET3(off, a, b, c, d, e, f) \
	GET2(off, a, b, c, d, e, f)    \
	VMOVUPS.Z off(DI)(R9*2), K1, c

#define GET4(off, a, b, c, d, e, f) \
	GET3(off, a, b, c, d, e, f)    \
	VMOVUPS.Z off(AX), K1, d

#define GET6(off, a, b, c, d, e, f) \
	GET4(off, a, b, c, d, e, f)    \
	VMOVUPS.Z off(DI)(R9*4), K1, e \
	VMOVUPS.Z off(AX)(R9*2), K1, f

#define PUT1(off, a, b, c, d, e, f) \
	VMOVUPS a, K1, off(DI)

#define PUT2(off, a, b, c, d, e, f) \
	PUT1(off, a, b, c, d, e, f)  \
	VMOVUPS b, K1, off(DI)(R9*1)

#define PUT3(off, a, b, c, d, e, f) \
	PUT2(off, a, b, c, d, e, f)  \
	VMOVUPS c, K1, off(DI)(R9*2)

#define PUT4(off, a, b, c, d, e, f) \
	PUT3(off, a, b, c, d, e, f)  \
	VMOVUPS d, K1, off(AX)

#define PUT6(off, a, b, c, d, e, f) \
	PUT4(off, a, b, c, d, e, f)  \
	VMOVUPS e, K1, off(DI)(R9*4) \
	VMOVUPS f, K1, off(AX)(R9*2)

#define ZERO6(off, a, b, c, d, e, f) \
	VPXORD a, a, a \
	VPXORD b, b, b \
	VPXORD c, c, c \
	VPXORD d, d, d \
	VPXORD e, e, e \
	VPXORD f, f, f

// DO for the sums of one strip, two or four.
#define EACH1(DO) \
	DO(0, Z0, Z1, Z2, Z3, Z4, Z5)

#define EACH2(DO) \
	EACH1(DO)                        \
	DO(64, Z6, Z7, Z8, Z9, Z10, Z11)

#define EACH4(DO) \
	EACH2(DO)                              \
	DO(128, Z16, Z17, Z18, Z19, Z20, Z21)  \
	DO(192, Z22, Z23, Z24, Z25, Z26, Z27)

#define ROW1(DOT, WIDE, SIZE) \
	WIDE((R11))                 \
	DOT(Z0, Z1, Z2, Z3, Z4, Z5)

#define ROW2(DOT, WIDE, SIZE) \
	ROW1(DOT, WIDE, SIZE)         \
	WIDE((16*SIZE)(R11))          \
	DOT(Z6, Z7, Z8, Z9, Z10, Z11)

#define ROW4(DOT, WIDE, SIZE) \
	ROW2(DOT, WIDE, SIZE)               \
	WIDE((32*SIZE)(R11))                \
	DOT(Z16, Z17, Z18, Z19, Z20, Z21)   \
	WIDE((48*SIZE)(R11))                \
	DOT(Z22, Z23, Z24, Z25, Z26, Z27)

// A band of 16·n lanes.
#define BAND(loop, n, P, GET, DOT, PUT, EACH, ROW, WIDE, FETCH, SIZE) \
	LEAQ    (R9)(R9*2), AX          \
	ADDQ    DI, AX                  \
	MOVQ    DX, R11                 \
	MOVQ    SI, R12                 \
	LEAQ    (R8)(R8*2), R15         \
	ADDQ    SI, R15                 \
	MOVQ    mixShape_steps(BX), R13 \
	EACH(ZERO6)                     \
	CMPB    mixShape_begin(BX), $0  \
	JNE     loop                    \
	EACH(GET)                       \
	PCALIGN $32                     \
loop: \
	FETCH                           \
	P                               \
	ROW(DOT, WIDE, SIZE)            \
	ADDQ    R10, R11                \
	ADDQ    $4, R12                 \
	ADDQ    $4, R15                 \
	DECQ    R13                     \
	JNE     loop                    \
	EACH(PUT)                       \
	ADDQ    $(16*n*SIZE), DX        \
	ADDQ    $(64*n), DI             \
	SUBQ    $(16*n), CX

// The bands of n queries.
#define TURN(n, b64, k64, b32, k32, b16, last, k16, P, GET, DOT, PUT, WIDE, MASKED, far4, far2, far1, SIZE) \
	MOVQ  $n, turn-8(SP)   \
b64: \
	CMPQ  CX, $64          \
	JLT   b32              \
	BAND(k64, 4, P, GET, DOT, PUT, EACH4, ROW4, WIDE, far4, SIZE) \
	ADDQ  R14, DX          \
	JMP   b64              \
b32: \
	CMPQ  CX, $32          \
	JLT   b16              \
	BAND(k32, 2, P, GET, DOT, PUT, EACH2, ROW2, WIDE, far2, SIZE) \
b16: \
	TESTQ CX, CX           \
	JLE   next             \
	CMPQ  CX, $16          \
	JGE   last             \
	MOVL  $1, AX           \
	SHLL  CX, AX           \
	DECL  AX               \
	KMOVW AX, K1           \
last: \
	BAND(k16, 1, P, GET, DOT, PUT, EACH1, ROW1, MASKED, far1, SIZE) \
	JMP   b16

#define MIX(WIDE, MASKED, far4, far2, far1, SIZE) \
	MOVQ   dst+0(FP), DI            \
	MOVQ   p+8(FP), SI              \
	MOVQ   m+24(FP), BX             \
	MOVQ   mixShape_stride(BX), R9  \
	SHLQ   $2, R9                   \
	MOVQ   mixShape_pStride(BX), R8 \
	SHLQ   $2, R8                   \
	IMUL3Q $SIZE, mixShape_step(BX), R10  \
	IMUL3Q $SIZE, mixShape_panel(BX), R14 \
	SUBQ   $(64*SIZE), R14          \
	MOVQ   mixShape_queries(BX), AX \
	MOVQ   AX, left-16(SP)          \
turn: \
	MOVQ   w+16(FP), DX             \
	MOVQ   DI, base-24(SP)          \
	MOVQ   mixShape_lanes(BX), CX   \
	MOVL   $0xffff, AX              \
	KMOVW  AX, K1                   \
	MOVQ   left-16(SP), AX          \
	CMPQ   AX, $1                   \
	JEQ    one                      \
	CMPQ   AX, $2                   \
	JEQ    two                      \
	CMPQ   AX, $3                   \
	JEQ    three                    \
	CMPQ   AX, $5                   \
	JEQ    three                    \
	CMPQ   AX, $4                   \
	JEQ    four                     \
	CMPQ   AX, $7                   \
	JEQ    four                     \
	CMPQ   AX, $8                   \
	JEQ    four                     \
	TURN(6, b64x6, k64x6, b32x6, k32x6, b16x6, lastx6, k16x6, P6, GET6, DOT6, PUT6, WIDE, MASKED, far4, far2, far1, SIZE) \
four: \
	TURN(4, b64x4, k64x4, b32x4, k32x4, b16x4, lastx4, k16x4, P4, GET4, DOT4, PUT4, WIDE, MASKED, far4, far2, far1, SIZE) \
three: \
	TURN(3, b64x3, k64x3, b32x3, k32x3, b16x3, lastx3, k16x3, P3, GET3, DOT3, PUT3, WIDE, MASKED, far4, far2, far1, SIZE) \
two: \
	TURN(2, b64x2, k64x2, b32x2, k32x2, b16x2, lastx2, k16x2, P2, GET2, DOT2, PUT2, WIDE, MASKED, far4, far2, far1, SIZE) \
one: \
	TURN(1, b64x1, k64x1, b32x1, k32x1, b16x1, lastx1, k16x1, P1, GET1, DOT1, PUT1, WIDE, MASKED, far4, far2, far1, SIZE) \
next: \
	MOVQ   turn-8(SP), AX          \
	MOVQ   AX, CX                   \
	IMULQ  R8, CX                   \
	ADDQ   CX, SI                   \
	MOVQ   base-24(SP), DI          \
	MOVQ   AX, CX                   \
	IMULQ  R9, CX                   \
	ADDQ   CX, DI                   \
	SUBQ   AX, left-16(SP)          \
	JNE    turn                     \
	VZEROUPPER                      \
	RET

// func mixF32AVX512(dst, p, w *float32, m *mixShape)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32AVX512(SB), NOSPLIT, $24-32
	MIX(WIDEF32, MASKEDF32, FETCH4, FETCH2, FETCH1, 4)

// func mixF16AVX512(dst, p *float32, w *uint16, m *mixShape)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16AVX512(SB), NOSPLIT, $24-32
	MIX(WIDEF16, MASKEDF16, FETCH2, FETCH1, FETCH1, 2)

// func mixInt8AVX512(dst, p *float32, w *int8, m *mixShape)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8AVX512(SB), NOSPLIT, $24-32
	MIX(WIDEINT8, MASKEDINT8, FETCH1, FETCH1, FETCH1, 1)
