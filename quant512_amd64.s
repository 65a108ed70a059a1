//go:build !purego

#include "textflag.h"
#include "tile512_amd64.h"

// Blocks of int8 and int4 groups on AVX-512 with VNNI.
//
//	Z0 … Z11   integer sums of a group, which begin with the activations' bias
//	Z12 … Z23  float sums
//	Z24, Z25 (Z26, Z27) w   Z28 x   Z29, Z30 scales, or the mask of int4   Z31 scratch

// DO(row of dst, its float sums) for each row of a tile.
#define FDST1(DO) \
	DO((DI), Z12, Z13)

#define FDST2(DO) \
	DO((DI), Z12, Z13)       \
	DO((DI)(R8*1), Z14, Z15)

#define FDST3(DO) \
	DO((DI), Z12, Z13)       \
	DO((DI)(R8*1), Z14, Z15) \
	DO((DI)(R8*2), Z16, Z17)

#define FDST4(DO) \
	FDST3(DO)           \
	DO((R15), Z18, Z19)

#define FDST5(DO) \
	FDST4(DO)                 \
	DO((R15)(R8*1), Z20, Z21)

#define FDST6(DO) \
	FDST5(DO)                 \
	DO((R15)(R8*2), Z22, Z23)

// Begin the integer sums of a row with its bias.
#define BIAS(x, a, b) \
	VPBROADCASTD 36 x, a \
	VMOVDQA32    a, b

// The panel's scales as float32.
#define SCALES(lo, hi) \
	VPMOVZXWD lo, Z29       \
	VPMOVZXWD hi, Z30       \
	VPSLLD    $16, Z29, Z29 \
	VPSLLD    $16, Z30, Z30

// Float sums c, d += float32(integer sums a, b) · (scales · scale p of the activations), each operation rounded.
#define SCALE(p, a, b, c, d) \
	VBROADCASTSS p, Z28        \
	VMULPS       Z28, Z29, Z31 \
	VCVTDQ2PS    a, a          \
	VMULPS       Z31, a, a     \
	VADDPS       a, c, c       \
	VMULPS       Z28, Z30, Z31 \
	VCVTDQ2PS    b, b          \
	VMULPS       Z31, b, b     \
	VADDPS       b, d, d

// The same for the rows of a tile; the activations' scales are at from R12 and R13.
#define SCALE1(at) \
	SCALE(at(R12), Z0, Z1, Z12, Z13)

#define SCALE2(at) \
	SCALE1(at)                              \
	SCALE(at(R12)(R9*1), Z2, Z3, Z14, Z15)

#define SCALE3(at) \
	SCALE2(at)                              \
	SCALE(at(R12)(R9*2), Z4, Z5, Z16, Z17)

#define SCALE4(at) \
	SCALE3(at)                       \
	SCALE(at(R13), Z6, Z7, Z18, Z19)

#define SCALE5(at) \
	SCALE4(at)                             \
	SCALE(at(R13)(R9*1), Z8, Z9, Z20, Z21)

#define SCALE6(at) \
	SCALE5(at)                               \
	SCALE(at(R13)(R9*2), Z10, Z11, Z22, Z23)

// w of a step of int8.
#define INT8W \
	VMOVDQU32 64(R10), Z24  \
	VMOVDQU32 128(R10), Z25

// Four inputs of a row: Z24, Z25 are w, unsigned; x is signed.
#define INT8ROW(x, a, b) \
	VPBROADCASTD x, Z28      \
	VPDPBUSD     Z28, Z24, a \
	VPDPBUSD     Z28, Z25, b

// Four inputs in the lower halves of w's bytes, Z24 and Z25, and four in the upper, Z26 and Z27.
#define INT4ROW(x, a, b) \
	VPBROADCASTD 0 x, Z28    \
	VPDPBUSD     Z28, Z24, a \
	VPDPBUSD     Z28, Z25, b \
	VPBROADCASTD 16 x, Z31   \
	VPDPBUSD     Z31, Z26, a \
	VPDPBUSD     Z31, Z27, b

// 15 in every byte of Z30.
#define NIBBLES \
	MOVL         $0x0f0f0f0f, BX \
	VPBROADCASTD BX, Z30

// w of a step of int4; Z30 holds NIBBLES.
#define INT4W \
	VMOVDQU32 64(R10), Z26  \
	VMOVDQU32 128(R10), Z27 \
	VPANDD    Z26, Z30, Z24 \
	VPANDD    Z27, Z30, Z25 \
	VPSRLD    $4, Z26, Z26  \
	VPSRLD    $4, Z27, Z27  \
	VPANDD    Z26, Z30, Z26 \
	VPANDD    Z27, Z30, Z27

#define NOTHING

// The tiles of a block fetch the next one between them, evenly, or else the first would wait for the memory and the
// others leave it idle: R14 is where, from the end of the block on or BLOCK ahead, ahead how much further with each
// step. w has groups of bytes, of which a step takes size.
#define SPREAD(bytes, size) \
	IMUL3Q  $bytes, BX, R14 \
	MOVQ    $BLOCK, R11     \
	CMPQ    R14, R11        \
	CMOVQGT R11, R14        \
	ADDQ    DX, R14         \
	LEAQ    5(CX), R11      \
	IMUL3Q  $10923, R11, R11 \
	SHRQ    $16, R11        \
	LEAQ    (size-1)(R11), AX \
	MOVQ    DX, R12         \
	XORL    DX, DX          \
	DIVL    R11             \
	MOVQ    R12, DX         \
	MOVQ    AX, ahead-8(SP)

#define FETCHNEXT \
	PREFETCHT0 (R14)              \
	PREFETCHT0 64(R14)            \
	ADDQ       ahead-8(SP), R14

// A tile of n rows: groups of steps of 128 bytes, of which W loads one and ROWS multiplies it with four inputs (and, of int4, four more) of
// each row of x, whose scale stands at bytes behind the last of them.
#define GROUPTILE(begin, group, k, n, steps, at, X, PREPARE, W, ROWS, FDST, SCALEN) \
begin: \
	FDST(ZERO)                \
	TESTL AX, AX              \
	JEQ   group               \
	FDST(LOAD)                \
group: \
	X(BIAS)                   \
	PREPARE                   \
	MOVQ  $steps, BX          \
k: \
	FETCHNEXT                 \
	W                         \
	ROWS                      \
	ADDQ  $4, R12             \
	ADDQ  $4, R13             \
	ADDQ  $128, R10           \
	DECQ  BX                  \
	JNE   k                   \
	SCALES((-128*steps)(R10), (-128*steps+32)(R10)) \
	SCALEN(at)                \
	ADDQ  $(8+at), R12        \
	ADDQ  $(8+at), R13        \
	ADDQ  $64, R10            \
	DECQ  R11                 \
	JNE   group               \
	FDST(STORE)               \
	MOVQ  groups+48(FP), BX   \
	AFTER(tile, n)

// A row by itself, a group a turn, with two more integer sums, Z2 and Z3, so that none waits for another. It is the memory that
// limits it, and the less there is to do for each line the further the processor sees.
#define ALONE8(i, a, b) \
	FETCH((NEAR+128*i), (R10))          \
	VMOVDQU32     (64+128*i)(R10), Z24  \
	VMOVDQU32     (128+128*i)(R10), Z25 \
	VPDPBUSD.BCST (4*i)(R12), Z24, a    \
	VPDPBUSD.BCST (4*i)(R12), Z25, b

#define INT8ALONE \
	ALONE8(0, Z0, Z1)  \
	ALONE8(1, Z2, Z3)  \
	ALONE8(2, Z0, Z1)  \
	ALONE8(3, Z2, Z3)  \
	ALONE8(4, Z0, Z1)  \
	ALONE8(5, Z2, Z3)  \
	ALONE8(6, Z0, Z1)  \
	ALONE8(7, Z2, Z3)

// Z4 has the lower halves of bytes, Z5 the upper: what these give is sixteen times their sum.
#define HALVES \
	MOVL         $0x0f0f0f0f, BX \
	VPBROADCASTD BX, Z4          \
	VPSLLD       $4, Z4, Z5

#define ALONE4(i) \
	FETCH((NEAR+128*i), (R10))          \
	VMOVDQU32     (64+128*i)(R10), Z26  \
	VMOVDQU32     (128+128*i)(R10), Z27 \
	VPANDD        Z26, Z4, Z24          \
	VPANDD        Z27, Z4, Z25          \
	VPANDD        Z26, Z5, Z26          \
	VPANDD        Z27, Z5, Z27          \
	VPDPBUSD.BCST (4*i)(R12), Z24, Z0   \
	VPDPBUSD.BCST (4*i)(R12), Z25, Z1   \
	VPDPBUSD.BCST (16+4*i)(R12), Z26, Z2 \
	VPDPBUSD.BCST (16+4*i)(R12), Z27, Z3

#define INT4ALONE \
	ALONE4(0)            \
	ALONE4(1)            \
	ALONE4(2)            \
	ALONE4(3)            \
	VPSRAD $4, Z2, Z2    \
	VPSRAD $4, Z3, Z3

#define ROWALONE(group, PREPARE, STEPS, bytes) \
	PREPARE              \
	FDST1(ZERO)          \
	TESTL  AX, AX        \
	JEQ    group         \
	FDST1(LOAD)          \
	PCALIGN $32          \
group: \
	X1(BIAS)             \
	VPXORD Z2, Z2, Z2    \
	VPXORD Z3, Z3, Z3    \
	SCALES((R10), 32(R10)) \
	STEPS                \
	FETCH64((NEAR+bytes), (R10)) \
	VPADDD Z2, Z0, Z0    \
	VPADDD Z3, Z1, Z1    \
	SCALE1(32)           \
	ADDQ   $40, R12      \
	ADDQ   $(64+bytes), R10 \
	DECQ   R11           \
	JNE    group         \
	FDST1(STORE)         \
	VZEROUPPER           \
	RET

// func mulBlockInt8AVX512(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt8Generic, the same bits.
TEXT ·mulBlockInt8AVX512(SB), NOSPLIT, $8-57
	MOVQ    dst+0(FP), DI
	MOVQ    stride+8(FP), R8
	SHLQ    $2, R8
	MOVQ    x+16(FP), SI
	MOVQ    xStride+24(FP), R9
	IMUL3Q  $40, R9, R9
	MOVQ    rows+32(FP), CX
	MOVQ    w+40(FP), DX
	MOVQ    groups+48(FP), BX
	CMPQ    CX, $1
	JEQ     tile
	SPREAD(1088, 136)
	MOVBLZX add+56(FP), AX

tile:
	TILE(int8x6, int8x5, int8x4, int8x3, int8x2, int8x1)

	GROUPTILE(int8x6, int8x6Group, int8x6K, 6, 8, 0, X6, NOTHING, INT8W, X6(INT8ROW), FDST6, SCALE6)
	GROUPTILE(int8x5, int8x5Group, int8x5K, 5, 8, 0, X5, NOTHING, INT8W, X5(INT8ROW), FDST5, SCALE5)
	GROUPTILE(int8x4, int8x4Group, int8x4K, 4, 8, 0, X4, NOTHING, INT8W, X4(INT8ROW), FDST4, SCALE4)
	GROUPTILE(int8x3, int8x3Group, int8x3K, 3, 8, 0, X3, NOTHING, INT8W, X3(INT8ROW), FDST3, SCALE3)
	GROUPTILE(int8x2, int8x2Group, int8x2K, 2, 8, 0, X2, NOTHING, INT8W, X2(INT8ROW), FDST2, SCALE2)

int8x1:
	ROWALONE(int8x1Group, NOTHING, INT8ALONE, 1024)

// func mulBlockInt4AVX512(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt4Generic, the same bits.
TEXT ·mulBlockInt4AVX512(SB), NOSPLIT, $8-57
	MOVQ    dst+0(FP), DI
	MOVQ    stride+8(FP), R8
	SHLQ    $2, R8
	MOVQ    x+16(FP), SI
	MOVQ    xStride+24(FP), R9
	IMUL3Q  $40, R9, R9
	MOVQ    rows+32(FP), CX
	MOVQ    w+40(FP), DX
	MOVQ    groups+48(FP), BX
	CMPQ    CX, $1
	JEQ     tile
	SPREAD(576, 144)
	MOVBLZX add+56(FP), AX

tile:
	TILE(int4x6, int4x5, int4x4, int4x3, int4x2, int4x1)

	GROUPTILE(int4x6, int4x6Group, int4x6K, 6, 4, 16, X6, NIBBLES, INT4W, X6(INT4ROW), FDST6, SCALE6)
	GROUPTILE(int4x5, int4x5Group, int4x5K, 5, 4, 16, X5, NIBBLES, INT4W, X5(INT4ROW), FDST5, SCALE5)
	GROUPTILE(int4x4, int4x4Group, int4x4K, 4, 4, 16, X4, NIBBLES, INT4W, X4(INT4ROW), FDST4, SCALE4)
	GROUPTILE(int4x3, int4x3Group, int4x3K, 3, 4, 16, X3, NIBBLES, INT4W, X3(INT4ROW), FDST3, SCALE3)
	GROUPTILE(int4x2, int4x2Group, int4x2K, 2, 4, 16, X2, NIBBLES, INT4W, X2(INT4ROW), FDST2, SCALE2)

int4x1:
	ROWALONE(int4x1Group, HALVES, INT4ALONE, 512)
