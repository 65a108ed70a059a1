//go:build !purego

#include "textflag.h"

// Blocks of a panel on AVX2 and FMA. All share a frame:
//
//	DI dst, R8 its stride in bytes   SI x, R9 its stride in bytes   CX rows left
//	DX w, BX its length in steps     AX add
//	R10 w, R12 x, R11 steps left, while a tile walks the panel
//
// A tile is 1 … 3 rows × 32 outputs; an accumulator holds 8 outputs of a row:
//
//	         w[k, 0…7]  w[k, 8…15]  w[k, 16…23]  w[k, 24…31]
//	x[0, k]     Y0         Y1          Y2           Y3
//	x[1, k]     Y4         Y5          Y6           Y7
//	x[2, k]     Y8         Y9          Y10          Y11
//
// Rows go three by three, a rest of four two by two. The slices are as long as the wrapper promises; nothing is checked here.

// Prefetch the weights of a step 16 KB ahead, which is the next block where a block is walked more than once.
#define FETCH(w) \
	PREFETCHT0 16384(w) \
	PREFETCHT0 16448(w)

#define ZERO4(a, b, c, d) \
	VXORPS a, a, a \
	VXORPS b, b, b \
	VXORPS c, c, c \
	VXORPS d, d, d

#define LOAD4(p, a, b, c, d) \
	VMOVUPS 0(p), a  \
	VMOVUPS 32(p), b \
	VMOVUPS 64(p), c \
	VMOVUPS 96(p), d

#define STORE4(p, a, b, c, d) \
	VMOVUPS a, 0(p)  \
	VMOVUPS b, 32(p) \
	VMOVUPS c, 64(p) \
	VMOVUPS d, 96(p)

// One step of three rows for 8 outputs: w is loaded once, Y12 … Y14 are x.
#define F32X3(w, a, b, c) \
	VMOVUPS     w, Y15      \
	VFMADD231PS Y15, Y12, a \
	VFMADD231PS Y15, Y13, b \
	VFMADD231PS Y15, Y14, c

#define F32X2(w, a, b) \
	VMOVUPS     w, Y15      \
	VFMADD231PS Y15, Y12, a \
	VFMADD231PS Y15, Y13, b

// func mulBlockF32AVX2(dst *float32, stride int, x *float32, xStride, rows int, w *float32, k int, add bool)
// Reference: mulBlockF32Generic, up to the rounding of fused products.
TEXT ·mulBlockF32AVX2(SB), NOSPLIT, $0-57
	MOVQ    dst+0(FP), DI
	MOVQ    stride+8(FP), R8
	SHLQ    $2, R8
	MOVQ    x+16(FP), SI
	MOVQ    xStride+24(FP), R9
	SHLQ    $2, R9
	MOVQ    rows+32(FP), CX
	MOVQ    w+40(FP), DX
	MOVQ    k+48(FP), BX
	MOVBLZX add+56(FP), AX

f32tile:
	MOVQ DX, R10
	MOVQ SI, R12
	MOVQ BX, R11
	CMPQ CX, $4
	JEQ  f32two
	CMPQ CX, $3
	JGE  f32three
	CMPQ CX, $2
	JEQ  f32two
	CMPQ CX, $1
	JEQ  f32one
	VZEROUPPER
	RET

f32three:
	LEAQ  (DI)(R8*1), R13
	LEAQ  (DI)(R8*2), R15
	ZERO4(Y0, Y1, Y2, Y3)
	ZERO4(Y4, Y5, Y6, Y7)
	ZERO4(Y8, Y9, Y10, Y11)
	TESTL AX, AX
	JEQ   f32threeK
	LOAD4(DI, Y0, Y1, Y2, Y3)
	LOAD4(R13, Y4, Y5, Y6, Y7)
	LOAD4(R15, Y8, Y9, Y10, Y11)

f32threeK:
	FETCH(R10)
	VBROADCASTSS (R12), Y12
	VBROADCASTSS (R12)(R9*1), Y13
	VBROADCASTSS (R12)(R9*2), Y14
	F32X3(0(R10), Y0, Y4, Y8)
	F32X3(32(R10), Y1, Y5, Y9)
	F32X3(64(R10), Y2, Y6, Y10)
	F32X3(96(R10), Y3, Y7, Y11)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R11
	JNE          f32threeK
	STORE4(DI, Y0, Y1, Y2, Y3)
	STORE4(R13, Y4, Y5, Y6, Y7)
	STORE4(R15, Y8, Y9, Y10, Y11)
	LEAQ         (R15)(R8*1), DI
	LEAQ         (SI)(R9*2), SI
	ADDQ         R9, SI
	SUBQ         $3, CX
	JMP          f32tile

f32two:
	LEAQ  (DI)(R8*1), R13
	ZERO4(Y0, Y1, Y2, Y3)
	ZERO4(Y4, Y5, Y6, Y7)
	TESTL AX, AX
	JEQ   f32twoK
	LOAD4(DI, Y0, Y1, Y2, Y3)
	LOAD4(R13, Y4, Y5, Y6, Y7)

f32twoK:
	FETCH(R10)
	VBROADCASTSS (R12), Y12
	VBROADCASTSS (R12)(R9*1), Y13
	F32X2(0(R10), Y0, Y4)
	F32X2(32(R10), Y1, Y5)
	F32X2(64(R10), Y2, Y6)
	F32X2(96(R10), Y3, Y7)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R11
	JNE          f32twoK
	STORE4(DI, Y0, Y1, Y2, Y3)
	STORE4(R13, Y4, Y5, Y6, Y7)
	LEAQ         (R13)(R8*1), DI
	LEAQ         (SI)(R9*2), SI
	SUBQ         $2, CX
	JMP          f32tile

f32one:
	ZERO4(Y0, Y1, Y2, Y3)
	TESTL AX, AX
	JEQ   f32oneK
	LOAD4(DI, Y0, Y1, Y2, Y3)

f32oneK:
	FETCH(R10)
	VBROADCASTSS (R12), Y12
	VFMADD231PS  0(R10), Y12, Y0
	VFMADD231PS  32(R10), Y12, Y1
	VFMADD231PS  64(R10), Y12, Y2
	VFMADD231PS  96(R10), Y12, Y3
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R11
	JNE          f32oneK
	STORE4(DI, Y0, Y1, Y2, Y3)
	VZEROUPPER
	RET

// A pair of inputs for 8 outputs: the lower half of a lane is the even input, the upper half the odd one.
// Y8 keeps the upper halves; Y9, Y10 are the pair of row 0, Y11, Y12 that of row 1.
#define BF16EVEN2(w, a, b, t) \
	VMOVDQU     w, t       \
	VPSLLD      $16, t, t  \
	VFMADD231PS t, Y9, a   \
	VFMADD231PS t, Y11, b

#define BF16ODD2(w, a, b, t) \
	VPAND       w, Y8, t   \
	VFMADD231PS t, Y10, a  \
	VFMADD231PS t, Y12, b

#define BF16EVEN1(w, a, t) \
	VMOVDQU     w, t      \
	VPSLLD      $16, t, t \
	VFMADD231PS t, Y9, a

#define BF16ODD1(w, a, t) \
	VPAND       w, Y8, t  \
	VFMADD231PS t, Y10, a

// func mulBlockBF16AVX2(dst *float32, stride int, x *float32, xStride, rows int, w *uint16, pairs int, add bool)
// Reference: mulBlockBF16Generic, up to the rounding of fused products. Tiles of two rows.
TEXT ·mulBlockBF16AVX2(SB), NOSPLIT, $0-57
	MOVQ     dst+0(FP), DI
	MOVQ     stride+8(FP), R8
	SHLQ     $2, R8
	MOVQ     x+16(FP), SI
	MOVQ     xStride+24(FP), R9
	SHLQ     $2, R9
	MOVQ     rows+32(FP), CX
	MOVQ     w+40(FP), DX
	MOVQ     pairs+48(FP), BX
	MOVBLZX  add+56(FP), AX
	VPCMPEQD Y8, Y8, Y8
	VPSLLD   $16, Y8, Y8

bf16tile:
	MOVQ DX, R10
	MOVQ SI, R12
	MOVQ BX, R11
	CMPQ CX, $2
	JGE  bf16two
	CMPQ CX, $1
	JEQ  bf16one
	VZEROUPPER
	RET

bf16two:
	LEAQ  (DI)(R8*1), R13
	ZERO4(Y0, Y1, Y2, Y3)
	ZERO4(Y4, Y5, Y6, Y7)
	TESTL AX, AX
	JEQ   bf16twoK
	LOAD4(DI, Y0, Y1, Y2, Y3)
	LOAD4(R13, Y4, Y5, Y6, Y7)

bf16twoK:
	FETCH(R10)
	VBROADCASTSS 0(R12), Y9
	VBROADCASTSS 4(R12), Y10
	VBROADCASTSS 0(R12)(R9*1), Y11
	VBROADCASTSS 4(R12)(R9*1), Y12
	BF16EVEN2(0(R10), Y0, Y4, Y13)
	BF16EVEN2(32(R10), Y1, Y5, Y14)
	BF16EVEN2(64(R10), Y2, Y6, Y15)
	BF16EVEN2(96(R10), Y3, Y7, Y13)
	BF16ODD2(0(R10), Y0, Y4, Y14)
	BF16ODD2(32(R10), Y1, Y5, Y15)
	BF16ODD2(64(R10), Y2, Y6, Y13)
	BF16ODD2(96(R10), Y3, Y7, Y14)
	ADDQ         $8, R12
	ADDQ         $128, R10
	DECQ         R11
	JNE          bf16twoK
	STORE4(DI, Y0, Y1, Y2, Y3)
	STORE4(R13, Y4, Y5, Y6, Y7)
	LEAQ         (R13)(R8*1), DI
	LEAQ         (SI)(R9*2), SI
	SUBQ         $2, CX
	JMP          bf16tile

bf16one:
	ZERO4(Y0, Y1, Y2, Y3)
	TESTL AX, AX
	JEQ   bf16oneK
	LOAD4(DI, Y0, Y1, Y2, Y3)

bf16oneK:
	FETCH(R10)
	VBROADCASTSS 0(R12), Y9
	VBROADCASTSS 4(R12), Y10
	BF16EVEN1(0(R10), Y0, Y13)
	BF16EVEN1(32(R10), Y1, Y14)
	BF16EVEN1(64(R10), Y2, Y15)
	BF16EVEN1(96(R10), Y3, Y13)
	BF16ODD1(0(R10), Y0, Y14)
	BF16ODD1(32(R10), Y1, Y15)
	BF16ODD1(64(R10), Y2, Y13)
	BF16ODD1(96(R10), Y3, Y14)
	ADDQ         $8, R12
	ADDQ         $128, R10
	DECQ         R11
	JNE          bf16oneK
	STORE4(DI, Y0, Y1, Y2, Y3)
	VZEROUPPER
	RET

// A pair of inputs of one row for 8 outputs of each of two panels: Y9, Y10 are the pair.
#define BF16ROWS(w, v, a, b) \
	VMOVDQU     w, Y11        \
	VMOVDQU     v, Y12        \
	VPAND       Y11, Y8, Y13  \
	VPAND       Y12, Y8, Y14  \
	VPSLLD      $16, Y11, Y11 \
	VPSLLD      $16, Y12, Y12 \
	VFMADD231PS Y11, Y9, a    \
	VFMADD231PS Y12, Y9, b    \
	VFMADD231PS Y13, Y10, a   \
	VFMADD231PS Y14, Y10, b

// func mulRowBF16AVX2(dst, x *float32, w, v *uint16, pairs int, add bool)
// Reference: mulBlockBF16Generic for one row and two panels, w and v. One panel alone would leave the multipliers waiting for
// its four sums: Y0 … Y3 are those of w, Y4 … Y7 those of v.
TEXT ·mulRowBF16AVX2(SB), NOSPLIT, $0-41
	MOVQ     dst+0(FP), DI
	MOVQ     x+8(FP), SI
	MOVQ     w+16(FP), R10
	MOVQ     v+24(FP), R9
	MOVQ     pairs+32(FP), R11
	MOVBLZX  add+40(FP), AX
	LEAQ     128(DI), R13
	VPCMPEQD Y8, Y8, Y8
	VPSLLD   $16, Y8, Y8
	ZERO4(Y0, Y1, Y2, Y3)
	ZERO4(Y4, Y5, Y6, Y7)
	TESTL    AX, AX
	JEQ      bf16rowK
	LOAD4(DI, Y0, Y1, Y2, Y3)
	LOAD4(R13, Y4, Y5, Y6, Y7)

bf16rowK:
	FETCH(R10)
	FETCH(R9)
	VBROADCASTSS 0(SI), Y9
	VBROADCASTSS 4(SI), Y10
	BF16ROWS(0(R10), 0(R9), Y0, Y4)
	BF16ROWS(32(R10), 32(R9), Y1, Y5)
	BF16ROWS(64(R10), 64(R9), Y2, Y6)
	BF16ROWS(96(R10), 96(R9), Y3, Y7)
	ADDQ         $8, SI
	ADDQ         $128, R10
	ADDQ         $128, R9
	DECQ         R11
	JNE          bf16rowK
	STORE4(DI, Y0, Y1, Y2, Y3)
	STORE4(R13, Y4, Y5, Y6, Y7)
	VZEROUPPER
	RET

// func isIntel() bool
// CPUID leaf 0 gives the vendor: "Genu" "ineI" "ntel" in BX, DX, CX.
TEXT ·isIntel(SB), NOSPLIT, $0-1
	XORL  AX, AX
	CPUID
	CMPL  BX, $0x756e6547
	SETEQ R8
	CMPL  DX, $0x49656e69
	SETEQ R9
	ANDL  R9, R8
	CMPL  CX, $0x6c65746e
	SETEQ R9
	ANDL  R9, R8
	MOVB  R8, ret+0(FP)
	RET
