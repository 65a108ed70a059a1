//go:build !purego

#include "textflag.h"
#include "tile512_amd64.h"

// Blocks of f32 and bf16 panels on AVX-512.

// One input of a row: Z24, Z25 are w.
#define F32ROW(x, a, b) \
	VBROADCASTSS x, Z26      \
	VFMADD231PS  Z24, Z26, a \
	VFMADD231PS  Z25, Z26, b

// w of an input at p: Z24, Z25.
#define F32W(p) \
	VMOVUPS 0 p, Z24  \
	VMOVUPS 64 p, Z25

// func mulBlockF32AVX512(dst *float32, stride int, x *float32, xStride, rows int, w *float32, k int, add bool)
// Reference: mulBlockF32Generic, up to the rounding of fused products.
TEXT ·mulBlockF32AVX512(SB), NOSPLIT, $8-57
	MOVQ    dst+0(FP), DI
	MOVQ    stride+8(FP), R8
	SHLQ    $2, R8
	MOVQ    x+16(FP), SI
	MOVQ    xStride+24(FP), R9
	SHLQ    $2, R9
	MOVQ    rows+32(FP), CX
	MOVQ    w+40(FP), DX
	MOVQ    k+48(FP), BX
	AHEAD(step-8(SP))
	MOVQ    w+40(FP), DX
	MOVBLZX add+56(FP), AX

tile:
	TILE12(f32x12, f32x6, f32x5, f32x4, f32x3, f32x2, f32x1)

f32x12:
	ROWS12UP
	DST12(ZERO)
	CMPB  add+56(FP), $0
	JEQ   f32x12Begin
	DST12(LOAD)

f32x12Begin:
	MOVQ k+48(FP), R11
	MOVQ step-8(SP), BX

f32x12K:
	F32W((R10))
	X12(F32ROW)
	ADDQ  $4, R12
	ADDQ  $4, R13
	ADDQ  $4, R14
	ADDQ  $4, AX
	ADDQ  $128, R10
	PREFETCHT1 (R15)
	PREFETCHT1 64(R15)
	ADDQ  BX, R15
	DECQ  R11
	JNE   f32x12K
	DST12(STORE)
	AFTER12(tile, k+48(FP))

	FLOATTILE(f32x6, f32x6K, 6, F32W((R10)), X6(F32ROW), 4, DST6, BLOCK)
	FLOATTILE(f32x5, f32x5K, 5, F32W((R10)), X5(F32ROW), 4, DST5, BLOCK)
	FLOATTILE(f32x4, f32x4K, 4, F32W((R10)), X4(F32ROW), 4, DST4, BLOCK)
	FLOATTILE(f32x3, f32x3K, 3, F32W((R10)), X3(F32ROW), 4, DST3, BLOCK)
	FLOATTILE(f32x2, f32x2K, 2, F32W((R10)), X2(F32ROW), 4, DST2, BLOCK)
	FLOATTILE(f32x1, f32x1K, 1, F32W((R10)), X1(F32ROW), 4, DST1, NEAR)

// w of a pair of inputs at p: Z24, Z25 the even one, Z26, Z27 the odd one. Z30 keeps the upper halves.
#define BF16W(p) \
	VPSLLD $16, 0 p, Z24   \
	VPSLLD $16, 64 p, Z25  \
	VPANDD 0 p, Z30, Z26   \
	VPANDD 64 p, Z30, Z27

// A pair of inputs of a row.
#define BF16ROW(x, a, b) \
	VBROADCASTSS 0 x, Z28    \
	VBROADCASTSS 4 x, Z29    \
	VFMADD231PS  Z24, Z28, a \
	VFMADD231PS  Z25, Z28, b \
	VFMADD231PS  Z26, Z29, a \
	VFMADD231PS  Z27, Z29, b

// func mulBlockBF16AVX512(dst *float32, stride int, x *float32, xStride, rows int, w *uint16, pairs int, add bool)
// Reference: mulBlockBF16Generic, up to the rounding of fused products.
TEXT ·mulBlockBF16AVX512(SB), NOSPLIT, $8-57
	MOVQ       dst+0(FP), DI
	MOVQ       stride+8(FP), R8
	SHLQ       $2, R8
	MOVQ       x+16(FP), SI
	MOVQ       xStride+24(FP), R9
	SHLQ       $2, R9
	MOVQ       rows+32(FP), CX
	MOVQ       w+40(FP), DX
	MOVQ       pairs+48(FP), BX
	AHEAD(step-8(SP))
	MOVQ       w+40(FP), DX
	MOVBLZX    add+56(FP), AX
	VPTERNLOGD $0xff, Z30, Z30, Z30
	VPSLLD     $16, Z30, Z30

tile:
	TILE12(bf16x12, bf16x6, bf16x5, bf16x4, bf16x3, bf16x2, bf16x1)

bf16x12:
	ROWS12UP
	DST12(ZERO)
	CMPB  add+56(FP), $0
	JEQ   bf16x12Begin
	DST12(LOAD)

bf16x12Begin:
	MOVQ pairs+48(FP), R11
	MOVQ step-8(SP), BX

bf16x12K:
	BF16W((R10))
	X12(BF16ROW)
	ADDQ  $8, R12
	ADDQ  $8, R13
	ADDQ  $8, R14
	ADDQ  $8, AX
	ADDQ  $128, R10
	PREFETCHT1 (R15)
	PREFETCHT1 64(R15)
	ADDQ  BX, R15
	DECQ  R11
	JNE   bf16x12K
	DST12(STORE)
	AFTER12(tile, pairs+48(FP))

	FLOATTILE(bf16x6, bf16x6K, 6, BF16W((R10)), X6(BF16ROW), 8, DST6, BLOCK)
	FLOATTILE(bf16x5, bf16x5K, 5, BF16W((R10)), X5(BF16ROW), 8, DST5, BLOCK)
	FLOATTILE(bf16x4, bf16x4K, 4, BF16W((R10)), X4(BF16ROW), 8, DST4, BLOCK)
	FLOATTILE(bf16x3, bf16x3K, 3, BF16W((R10)), X3(BF16ROW), 8, DST3, BLOCK)
	FLOATTILE(bf16x2, bf16x2K, 2, BF16W((R10)), X2(BF16ROW), 8, DST2, BLOCK)
	FLOATTILE(bf16x1, bf16x1K, 1, BF16W((R10)), X1(BF16ROW), 8, DST1, NEAR)

// func mulRowBF16AVX512(dst, x *float32, w, v *uint16, pairs int, add bool)
// Reference: mulBlockBF16Generic for one row and two panels, w (Z0, Z1) and v (Z2, Z3), so that sums need not wait for one another.
TEXT ·mulRowBF16AVX512(SB), NOSPLIT, $0-41
	MOVQ       dst+0(FP), DI
	MOVQ       x+8(FP), R12
	MOVQ       w+16(FP), R10
	MOVQ       v+24(FP), DX
	MOVQ       pairs+32(FP), R11
	MOVBLZX    add+40(FP), AX
	MOVQ       $128, R8
	VPTERNLOGD $0xff, Z30, Z30, Z30
	VPSLLD     $16, Z30, Z30
	DST2(ZERO)
	TESTL AX, AX
	JEQ   bf16rowK
	DST2(LOAD)

bf16rowK:
	FETCH(NEAR, (R10))
	FETCH(NEAR, (DX))
	BF16W((R10))
	BF16ROW((R12), Z0, Z1)
	BF16W((DX))
	BF16ROW((R12), Z2, Z3)
	ADDQ  $8, R12
	ADDQ  $128, R10
	ADDQ  $128, DX
	DECQ  R11
	JNE   bf16rowK
	DST2(STORE)
	VZEROUPPER
	RET
