//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// The sums of attention on AVX2 and FMA, with the bits of those on AVX-512 (attention512_amd64.s): queries go three by three, a rest of
// four two by two, and bands are 32, 16, 8 or 4 elements wide, for a query alone 64. A macro takes WIDEN, which loads eight elements (into
// a Y register) or four (into an X register, zeros above) as float32, and SIZE, the bytes of an element. lanes is a multiple of
// four; no count is zero.
//
//	         w[s, 0…7]  w[s, 8…15]  w[s, 16…23]  w[s, 24…31]
//	query 0     Y0         Y3          Y6           Y9
//	query 1     Y1         Y4          Y7           Y10
//	query 2     Y2         Y5          Y8           Y11
//
//	DI dst, R9 its stride in bytes   SI p, R8 its stride in bytes   DX w at the band   BX the shape
//	R11 a row of w, R10 to the next   R12 p   R13 rows left   R15 lanes left   R14 from the end of a panel to the beginning of the next
//
// Rows are fetched AHEAD, as there.
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

#define WIDENF32(m, y) \
	VMOVUPS m, y

#define WIDENF16(m, y) \
	VCVTPH2PS m, y

#define WIDENINT8(m, y) \
	VPMOVSXBD m, y \
	VCVTDQ2PS y, y

// What the queries multiply a row with.
#define P1 \
	VBROADCASTSS (R12), Y12

#define P2 \
	P1                            \
	VBROADCASTSS (R12)(R8*1), Y13

#define P3 \
	P2                            \
	VBROADCASTSS (R12)(R8*2), Y14

#define DOT1(a, b, c) \
	VFMADD231PS Y15, Y12, a

#define DOT2(a, b, c) \
	DOT1(a, b, c)           \
	VFMADD231PS Y15, Y13, b

#define DOT3(a, b, c) \
	DOT2(a, b, c)           \
	VFMADD231PS Y15, Y14, c

// Sums from and to memory.
#define GET1(off, a, b, c) \
	VMOVUPS off(DI), a

#define GET2(off, a, b, c) \
	GET1(off, a, b, c)       \
	VMOVUPS off(DI)(R9*1), b

#define GET3(off, a, b, c) \
	GET2(off, a, b, c)       \
	VMOVUPS off(DI)(R9*2), c

#define PUT1(off, a, b, c) \
	VMOVUPS a, off(DI)

#define PUT2(off, a, b, c) \
	PUT1(off, a, b, c)       \
	VMOVUPS b, off(DI)(R9*1)

#define PUT3(off, a, b, c) \
	PUT2(off, a, b, c)       \
	VMOVUPS c, off(DI)(R9*2)

#define ZERO3(off, a, b, c) \
	VXORPS a, a, a \
	VXORPS b, b, b \
	VXORPS c, c, c

// DO for the sums of a band.
#define EACH4(DO) \
	DO(0, X0, X1, X2)

#define EACH8(DO) \
	DO(0, Y0, Y1, Y2)

#define EACH16(DO) \
	EACH8(DO)          \
	DO(32, Y3, Y4, Y5)

#define EACH32(DO) \
	EACH16(DO)          \
	DO(64, Y6, Y7, Y8)  \
	DO(96, Y9, Y10, Y11)

// Of a query alone.
#define EACH64(DO) \
	DO(0, Y0, Y0, Y0)    \
	DO(32, Y1, Y1, Y1)   \
	DO(64, Y2, Y2, Y2)   \
	DO(96, Y3, Y3, Y3)   \
	DO(128, Y4, Y4, Y4)  \
	DO(160, Y5, Y5, Y5)  \
	DO(192, Y6, Y6, Y6)  \
	DO(224, Y7, Y7, Y7)

#define ROW4(DOT, WIDEN, SIZE) \
	WIDEN((R11), X15) \
	DOT(Y0, Y1, Y2)

#define ROW8(DOT, WIDEN, SIZE) \
	WIDEN((R11), Y15) \
	DOT(Y0, Y1, Y2)

#define ROW16(DOT, WIDEN, SIZE) \
	ROW8(DOT, WIDEN, SIZE)     \
	WIDEN((8*SIZE)(R11), Y15)  \
	DOT(Y3, Y4, Y5)

#define ROW32(DOT, WIDEN, SIZE) \
	ROW16(DOT, WIDEN, SIZE)     \
	WIDEN((16*SIZE)(R11), Y15)  \
	DOT(Y6, Y7, Y8)             \
	WIDEN((24*SIZE)(R11), Y15)  \
	DOT(Y9, Y10, Y11)

#define ROW64(DOT, WIDEN, SIZE) \
	WIDEN((R11), Y15)           \
	DOT(Y0, Y0, Y0)             \
	WIDEN((8*SIZE)(R11), Y15)   \
	DOT(Y1, Y1, Y1)             \
	WIDEN((16*SIZE)(R11), Y15)  \
	DOT(Y2, Y2, Y2)             \
	WIDEN((24*SIZE)(R11), Y15)  \
	DOT(Y3, Y3, Y3)             \
	WIDEN((32*SIZE)(R11), Y15)  \
	DOT(Y4, Y4, Y4)             \
	WIDEN((40*SIZE)(R11), Y15)  \
	DOT(Y5, Y5, Y5)             \
	WIDEN((48*SIZE)(R11), Y15)  \
	DOT(Y6, Y6, Y6)             \
	WIDEN((56*SIZE)(R11), Y15)  \
	DOT(Y7, Y7, Y7)

// A band of n lanes.
#define BAND(loop, n, P, GET, DOT, PUT, EACH, ROW, WIDEN, FETCH, SIZE) \
	MOVQ    DX, R11                 \
	MOVQ    SI, R12                 \
	MOVQ    mixShape_steps(BX), R13 \
	EACH(ZERO3)                     \
	CMPB    mixShape_begin(BX), $0  \
	JNE     loop                    \
	EACH(GET)                       \
	PCALIGN $32                     \
loop: \
	FETCH                           \
	P                               \
	ROW(DOT, WIDEN, SIZE)           \
	ADDQ    R10, R11                \
	ADDQ    $4, R12                 \
	DECQ    R13                     \
	JNE     loop                    \
	EACH(PUT)                       \
	ADDQ    $(n*SIZE), DX           \
	ADDQ    $(4*n), DI              \
	SUBQ    $n, R15

// The bands of n queries.
#define TURN(n, b32, k32, b16, k16, b8, k8, b4, k4, P, GET, DOT, PUT, WIDEN, far2, far1, SIZE) \
	MOVQ $n, turn-8(SP) \
b32: \
	CMPQ R15, $32        \
	JLT  b16             \
	BAND(k32, 32, P, GET, DOT, PUT, EACH32, ROW32, WIDEN, far2, SIZE) \
	LEAQ    (DX)(R14*1), CX \
	MOVQ    mixShape_lanes(BX), AX \
	SUBQ    R15, AX      \
	TESTQ   $63, AX      \
	CMOVQEQ CX, DX       \
	JMP  b32             \
b16: \
	CMPQ R15, $16        \
	JLT  b8              \
	BAND(k16, 16, P, GET, DOT, PUT, EACH16, ROW16, WIDEN, far1, SIZE) \
b8: \
	CMPQ R15, $8         \
	JLT  b4              \
	BAND(k8, 8, P, GET, DOT, PUT, EACH8, ROW8, WIDEN, far1, SIZE) \
b4: \
	TESTQ R15, R15       \
	JEQ  next            \
	BAND(k4, 4, P, GET, DOT, PUT, EACH4, ROW4, WIDEN, far1, SIZE) \
	JMP  next

#define MIX(WIDEN, far4, far2, far1, SIZE) \
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
	MOVQ   mixShape_lanes(BX), R15  \
	MOVQ   left-16(SP), CX          \
	CMPQ   CX, $1                   \
	JEQ    one                      \
	CMPQ   CX, $2                   \
	JEQ    two                      \
	CMPQ   CX, $4                   \
	JEQ    two                      \
	TURN(3, b32x3, k32x3, b16x3, k16x3, b8x3, k8x3, b4x3, k4x3, P3, GET3, DOT3, PUT3, WIDEN, far2, far1, SIZE) \
two: \
	TURN(2, b32x2, k32x2, b16x2, k16x2, b8x2, k8x2, b4x2, k4x2, P2, GET2, DOT2, PUT2, WIDEN, far2, far1, SIZE) \
one: \
	CMPQ   R15, $64                 \
	JLT    few                      \
	BAND(k64, 64, P1, GET1, DOT1, PUT1, EACH64, ROW64, WIDEN, far4, SIZE) \
	ADDQ   R14, DX                  \
	JMP    one                      \
few: \
	TURN(1, b32x1, k32x1, b16x1, k16x1, b8x1, k8x1, b4x1, k4x1, P1, GET1, DOT1, PUT1, WIDEN, far2, far1, SIZE) \
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

// func mixF32AVX2(dst, p, w *float32, m *mixShape)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32AVX2(SB), NOSPLIT, $24-32
	MIX(WIDENF32, FETCH4, FETCH2, FETCH1, 4)

// func mixF16AVX2(dst, p *float32, w *uint16, m *mixShape)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16AVX2(SB), NOSPLIT, $24-32
	MIX(WIDENF16, FETCH2, FETCH1, FETCH1, 2)

// func mixInt8AVX2(dst, p *float32, w *int8, m *mixShape)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8AVX2(SB), NOSPLIT, $24-32
	MIX(WIDENINT8, FETCH1, FETCH1, FETCH1, 1)
