//go:build !purego

#include "textflag.h"

// Blocks of int8 and int4 groups on AVX2, with and without AVX-VNNI, in the frame of matmul_amd64.s: DI, R8 dst; SI, R9 groups of
// activations; CX rows left; DX w; BX groups; R10 w, R12 x, R11 groups left, R13 the step within a group.
//
// A tile is 1 or 2 rows × 32 outputs, row 0 in Y0 … Y3 and row 1 in Y4 … Y7: the integer sums of one group. The float sums
// stay in dst.

// Prefetch the weights of a step 16 KB ahead.
#define FETCH64(w) PREFETCHT0 16384(w)

#define FETCH(w) \
	FETCH64(w)          \
	PREFETCHT0 16448(w)

// sums (4 × 8 int32) of one row into dst p: dst += float32(sum) · (scale · sx), each operation rounded.
// w has the panel's scales at 0, sx is the activations' scale in every lane of Y12.
#define SCALE8(w, p, sum) \
	VPMOVZXWD w, Y13        \
	VPSLLD    $16, Y13, Y13 \
	VMULPS    Y12, Y13, Y13 \
	VCVTDQ2PS sum, Y14      \
	VMULPS    Y13, Y14, Y14 \
	VADDPS    p, Y14, Y14   \
	VMOVUPS   Y14, p

// Clear a row of dst.
#define CLEAR4(p) \
	VMOVUPS Y15, 0(p)  \
	VMOVUPS Y15, 32(p) \
	VMOVUPS Y15, 64(p) \
	VMOVUPS Y15, 96(p)

#define ZEROSUMS(p, a, b, c, d) \
	VPXOR a, a, a \
	VPXOR b, b, b \
	VPXOR c, c, c \
	VPXOR d, d, d

// Sums that begin with the bias of the row's group at p.
#define BIAS(p, a, b, c, d) \
	VPBROADCASTD 36 p, a \
	VMOVDQA      a, b    \
	VMOVDQA      a, c    \
	VMOVDQA      a, d

// A kernel: groups of steps of 128 bytes, whose sums START sets, STEP1 or STEP2 adds to, and END finishes. The activations' scale stands
// at bytes behind the last step's.
#define KERNEL(steps, at, START, STEP1, STEP2, END) \
	MOVQ    dst+0(FP), DI      \
	MOVQ    stride+8(FP), R8   \
	SHLQ    $2, R8             \
	MOVQ    x+16(FP), SI       \
	MOVQ    xStride+24(FP), R9 \
	IMUL3Q  $40, R9, R9        \
	MOVQ    rows+32(FP), CX    \
	MOVQ    w+40(FP), DX       \
	MOVQ    groups+48(FP), BX  \
	MOVBLZX add+56(FP), AX     \
tile: \
	MOVQ DX, R10               \
	MOVQ SI, R12               \
	MOVQ BX, R11               \
	CMPQ CX, $2                \
	JGE  two                   \
	CMPQ CX, $1                \
	JEQ  one                   \
	VZEROUPPER                 \
	RET                        \
two: \
	LEAQ  (DI)(R8*1), R15      \
	TESTL AX, AX               \
	JNE   twoGroup             \
	VPXOR Y15, Y15, Y15        \
	CLEAR4(DI)                 \
	CLEAR4(R15)                \
twoGroup: \
	START((R12), Y0, Y1, Y2, Y3) \
	START((R12)(R9*1), Y4, Y5, Y6, Y7) \
	MOVQ $steps, R13           \
twoK: \
	FETCH(R10)                 \
	STEP2                      \
	ADDQ $4, R12               \
	ADDQ $128, R10             \
	DECQ R13                   \
	JNE  twoK                  \
	FETCH64(R10)               \
	END((4+at)(R12), Y0, Y1, Y2, Y3) \
	END((4+at)(R12)(R9*1), Y4, Y5, Y6, Y7) \
	VBROADCASTSS at(R12), Y12  \
	SCALE8((-128*steps)(R10), 0(DI), Y0) \
	SCALE8((-128*steps+16)(R10), 32(DI), Y1) \
	SCALE8((-128*steps+32)(R10), 64(DI), Y2) \
	SCALE8((-128*steps+48)(R10), 96(DI), Y3) \
	VBROADCASTSS at(R12)(R9*1), Y12 \
	SCALE8((-128*steps)(R10), 0(R15), Y4) \
	SCALE8((-128*steps+16)(R10), 32(R15), Y5) \
	SCALE8((-128*steps+32)(R10), 64(R15), Y6) \
	SCALE8((-128*steps+48)(R10), 96(R15), Y7) \
	ADDQ $(8+at), R12          \
	ADDQ $64, R10              \
	DECQ R11                   \
	JNE  twoGroup              \
	LEAQ (R15)(R8*1), DI       \
	LEAQ (SI)(R9*2), SI        \
	SUBQ $2, CX                \
	JMP  tile                  \
one: \
	TESTL AX, AX               \
	JNE   oneGroup             \
	VPXOR Y15, Y15, Y15        \
	CLEAR4(DI)                 \
oneGroup: \
	START((R12), Y0, Y1, Y2, Y3) \
	MOVQ $steps, R13           \
oneK: \
	FETCH(R10)                 \
	STEP1                      \
	ADDQ $4, R12               \
	ADDQ $128, R10             \
	DECQ R13                   \
	JNE  oneK                  \
	FETCH64(R10)               \
	END((4+at)(R12), Y0, Y1, Y2, Y3) \
	VBROADCASTSS at(R12), Y12  \
	SCALE8((-128*steps)(R10), 0(DI), Y0) \
	SCALE8((-128*steps+16)(R10), 32(DI), Y1) \
	SCALE8((-128*steps+32)(R10), 64(DI), Y2) \
	SCALE8((-128*steps+48)(R10), 96(DI), Y3) \
	ADDQ $(8+at), R12          \
	ADDQ $64, R10              \
	DECQ R11                   \
	JNE  oneGroup              \
	VZEROUPPER                 \
	RET

#define NOTHING(p, a, b, c, d)

// Y14 = w as signed bytes, of 8 outputs × 4 inputs. Y9 is 0x80 in every byte, Y8 1 in every word.
#define INT8W(w) \
	VPXOR w, Y9, Y14

// sum += w · x, where |x| is the unsigned factor and w takes the sign of x: 127·127·2 does not saturate.
#define INT8DOT(x, absx, sum) \
	VPSIGNB    x, Y14, Y15    \
	VPMADDUBSW Y15, absx, Y15 \
	VPMADDWD   Y8, Y15, Y15   \
	VPADDD     Y15, sum, sum

#define INT8STEP1 \
	VPBROADCASTD (R12), Y10  \
	VPABSB       Y10, Y11    \
	INT8W(64(R10))           \
	INT8DOT(Y10, Y11, Y0)    \
	INT8W(96(R10))           \
	INT8DOT(Y10, Y11, Y1)    \
	INT8W(128(R10))          \
	INT8DOT(Y10, Y11, Y2)    \
	INT8W(160(R10))          \
	INT8DOT(Y10, Y11, Y3)

#define INT8STEP2 \
	VPBROADCASTD (R12), Y10  \
	VPBROADCASTD (R12)(R9*1), Y12 \
	VPABSB       Y10, Y11    \
	VPABSB       Y12, Y13    \
	INT8W(64(R10))           \
	INT8DOT(Y10, Y11, Y0)    \
	INT8DOT(Y12, Y13, Y4)    \
	INT8W(96(R10))           \
	INT8DOT(Y10, Y11, Y1)    \
	INT8DOT(Y12, Y13, Y5)    \
	INT8W(128(R10))          \
	INT8DOT(Y10, Y11, Y2)    \
	INT8DOT(Y12, Y13, Y6)    \
	INT8W(160(R10))          \
	INT8DOT(Y10, Y11, Y3)    \
	INT8DOT(Y12, Y13, Y7)

// func mulBlockInt8AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt8Generic, the same bits.
TEXT ·mulBlockInt8AVX2(SB), NOSPLIT, $0-57
	VPCMPEQW  Y8, Y8, Y8
	VPSRLW    $15, Y8, Y8
	VPSLLW    $7, Y8, Y9
	VPACKUSWB Y9, Y9, Y9
	KERNEL(8, 0, ZEROSUMS, INT8STEP1, INT8STEP2, NOTHING)

// Y14, Y15 = the lower and upper halves of w's bytes, 0 … 15, of 8 outputs × 4 inputs each. Y9 is 15 in every byte.
#define INT4W(w) \
	VMOVDQU w, Y15       \
	VPAND   Y15, Y9, Y14 \
	VPSRLW  $4, Y15, Y15 \
	VPAND   Y15, Y9, Y15

// sum += w · x as words: a group adds up to 16·127·15 = 30480 at most, so that nothing saturates.
#define INT4DOT(lo, hi, sum) \
	VPMADDUBSW lo, Y14, Y13  \
	VPADDW     Y13, sum, sum \
	VPMADDUBSW hi, Y15, Y13  \
	VPADDW     Y13, sum, sum

// Words to int32, and the bias p of the row. Y10 becomes 1 in every word.
#define INT4SUM(p, a, b, c, d) \
	VPCMPEQW     Y10, Y10, Y10 \
	VPSRLW       $15, Y10, Y10 \
	VPBROADCASTD p, Y13        \
	VPMADDWD     Y10, a, a     \
	VPMADDWD     Y10, b, b     \
	VPMADDWD     Y10, c, c     \
	VPMADDWD     Y10, d, d     \
	VPADDD       Y13, a, a     \
	VPADDD       Y13, b, b     \
	VPADDD       Y13, c, c     \
	VPADDD       Y13, d, d

// x of a step of int4: four inputs for the lower halves, in Y10 and for the second row Y12, four for the upper in Y11 and Y8.
#define INT4X1 \
	VPBROADCASTD 0(R12), Y10  \
	VPBROADCASTD 16(R12), Y11

#define INT4X2 \
	INT4X1                           \
	VPBROADCASTD 0(R12)(R9*1), Y12   \
	VPBROADCASTD 16(R12)(R9*1), Y8

#define INT4STEP1 \
	INT4X1                 \
	INT4W(64(R10))         \
	INT4DOT(Y10, Y11, Y0)  \
	INT4W(96(R10))         \
	INT4DOT(Y10, Y11, Y1)  \
	INT4W(128(R10))        \
	INT4DOT(Y10, Y11, Y2)  \
	INT4W(160(R10))        \
	INT4DOT(Y10, Y11, Y3)

#define INT4STEP2 \
	INT4X2                 \
	INT4W(64(R10))         \
	INT4DOT(Y10, Y11, Y0)  \
	INT4DOT(Y12, Y8, Y4)   \
	INT4W(96(R10))         \
	INT4DOT(Y10, Y11, Y1)  \
	INT4DOT(Y12, Y8, Y5)   \
	INT4W(128(R10))        \
	INT4DOT(Y10, Y11, Y2)  \
	INT4DOT(Y12, Y8, Y6)   \
	INT4W(160(R10))        \
	INT4DOT(Y10, Y11, Y3)  \
	INT4DOT(Y12, Y8, Y7)

// 15 in every byte of Y9.
#define NIBBLES \
	VPCMPEQW  Y9, Y9, Y9  \
	VPSRLW    $12, Y9, Y9 \
	VPACKUSWB Y9, Y9, Y9

// func mulBlockInt4AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt4Generic, the same bits.
TEXT ·mulBlockInt4AVX2(SB), NOSPLIT, $0-57
	NIBBLES
	KERNEL(4, 16, ZEROSUMS, INT4STEP1, INT4STEP2, INT4SUM)

// The assembler knows VPDPBUSD of AVX-512 only. sum += w · x: w unsigned in Y14 or, the upper halves of int4, Y15; x signed, of the first
// row in Y10 or Y11, of the second in Y12 or Y8.
#define DOTW_Y0 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xc2 // {vex} VPDPBUSD Y10, Y14, Y0
#define DOTW_Y1 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xca // {vex} VPDPBUSD Y10, Y14, Y1
#define DOTW_Y2 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xd2 // {vex} VPDPBUSD Y10, Y14, Y2
#define DOTW_Y3 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xda // {vex} VPDPBUSD Y10, Y14, Y3
#define DOTW_Y4 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xe4 // {vex} VPDPBUSD Y12, Y14, Y4
#define DOTW_Y5 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xec // {vex} VPDPBUSD Y12, Y14, Y5
#define DOTW_Y6 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xf4 // {vex} VPDPBUSD Y12, Y14, Y6
#define DOTW_Y7 BYTE $0xc4; BYTE $0xc2; BYTE $0x0d; BYTE $0x50; BYTE $0xfc // {vex} VPDPBUSD Y12, Y14, Y7
#define DOTH_Y0 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xc3 // {vex} VPDPBUSD Y11, Y15, Y0
#define DOTH_Y1 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xcb // {vex} VPDPBUSD Y11, Y15, Y1
#define DOTH_Y2 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xd3 // {vex} VPDPBUSD Y11, Y15, Y2
#define DOTH_Y3 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xdb // {vex} VPDPBUSD Y11, Y15, Y3
#define DOTH_Y4 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xe0 // {vex} VPDPBUSD Y8, Y15, Y4
#define DOTH_Y5 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xe8 // {vex} VPDPBUSD Y8, Y15, Y5
#define DOTH_Y6 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xf0 // {vex} VPDPBUSD Y8, Y15, Y6
#define DOTH_Y7 BYTE $0xc4; BYTE $0xc2; BYTE $0x05; BYTE $0x50; BYTE $0xf8 // {vex} VPDPBUSD Y8, Y15, Y7

#define VNNI8STEP1 \
	VPBROADCASTD (R12), Y10    \
	VMOVDQU 64(R10), Y14; DOTW_Y0  \
	VMOVDQU 96(R10), Y14; DOTW_Y1  \
	VMOVDQU 128(R10), Y14; DOTW_Y2 \
	VMOVDQU 160(R10), Y14; DOTW_Y3

#define VNNI8STEP2 \
	VPBROADCASTD (R12), Y10         \
	VPBROADCASTD (R12)(R9*1), Y12   \
	VMOVDQU 64(R10), Y14; DOTW_Y0; DOTW_Y4  \
	VMOVDQU 96(R10), Y14; DOTW_Y1; DOTW_Y5  \
	VMOVDQU 128(R10), Y14; DOTW_Y2; DOTW_Y6 \
	VMOVDQU 160(R10), Y14; DOTW_Y3; DOTW_Y7

// func mulBlockInt8AVXVNNI(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt8Generic, the same bits.
TEXT ·mulBlockInt8AVXVNNI(SB), NOSPLIT, $0-57
	KERNEL(8, 0, BIAS, VNNI8STEP1, VNNI8STEP2, NOTHING)

#define VNNI4STEP1 \
	INT4X1                            \
	INT4W(64(R10)); DOTW_Y0; DOTH_Y0  \
	INT4W(96(R10)); DOTW_Y1; DOTH_Y1  \
	INT4W(128(R10)); DOTW_Y2; DOTH_Y2 \
	INT4W(160(R10)); DOTW_Y3; DOTH_Y3

#define VNNI4STEP2 \
	INT4X2                                              \
	INT4W(64(R10)); DOTW_Y0; DOTW_Y4; DOTH_Y0; DOTH_Y4  \
	INT4W(96(R10)); DOTW_Y1; DOTW_Y5; DOTH_Y1; DOTH_Y5  \
	INT4W(128(R10)); DOTW_Y2; DOTW_Y6; DOTH_Y2; DOTH_Y6 \
	INT4W(160(R10)); DOTW_Y3; DOTW_Y7; DOTH_Y3; DOTH_Y7

// func mulBlockInt4AVXVNNI(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt4Generic, the same bits.
TEXT ·mulBlockInt4AVXVNNI(SB), NOSPLIT, $0-57
	NIBBLES
	KERNEL(4, 16, BIAS, VNNI4STEP1, VNNI4STEP2, NOTHING)

// func quantizeGroupsAVX2(dst *quantGroup, x *float32, groups int, offset int32)
// Reference: quantizeRowGeneric, the same bits.
//
// Y0 … Y3 the group's values, Y4 … Y7 their magnitudes; Y14 the sign bit's complement, Y15 the order that undoes the packing.
TEXT ·quantizeGroupsAVX2(SB), NOSPLIT, $0-28
	MOVQ     dst+0(FP), DI
	MOVQ     x+8(FP), SI
	MOVQ     groups+16(FP), CX
	MOVL     offset+24(FP), R8
	VPCMPEQD Y14, Y14, Y14
	VPSRLD   $1, Y14, Y14
	VMOVDQU  unpack<>(SB), Y15
	MOVL     $0x42fe0000, AX         // 127
	VMOVD    AX, X13

quantGroup:
	VMOVUPS      0(SI), Y0
	VMOVUPS      32(SI), Y1
	VMOVUPS      64(SI), Y2
	VMOVUPS      96(SI), Y3
	VPAND        Y14, Y0, Y4
	VPAND        Y14, Y1, Y5
	VPAND        Y14, Y2, Y6
	VPAND        Y14, Y3, Y7
	VPMAXSD      Y4, Y5, Y4
	VPMAXSD      Y6, Y7, Y6
	VPMAXSD      Y4, Y6, Y4
	VEXTRACTI128 $1, Y4, X5
	VPMAXSD      X4, X5, X4
	VPSHUFD      $0x4e, X4, X5
	VPMAXSD      X4, X5, X4
	VPSHUFD      $0xb1, X4, X5
	VPMAXSD      X4, X5, X4
	VMOVD        X4, AX
	CMPL         AX, $0x7f800000
	JCC          quantNaN
	CMPL         AX, $0x0d800000     // tinyAmax
	JCS          quantZero
	VDIVSS       X13, X4, X5         // amax / 127
	VDIVSS       X4, X13, X6         // 127 / amax
	VMOVSS       X5, 32(DI)
	VBROADCASTSS X6, Y6
	VMULPS       Y6, Y0, Y0
	VMULPS       Y6, Y1, Y1
	VMULPS       Y6, Y2, Y2
	VMULPS       Y6, Y3, Y3
	VCVTPS2DQ    Y0, Y0
	VCVTPS2DQ    Y1, Y1
	VCVTPS2DQ    Y2, Y2
	VCVTPS2DQ    Y3, Y3
	VPADDD       Y0, Y1, Y4
	VPADDD       Y2, Y3, Y5
	VPADDD       Y4, Y5, Y4
	VEXTRACTI128 $1, Y4, X5
	VPADDD       X4, X5, X4
	VPSHUFD      $0x4e, X4, X5
	VPADDD       X4, X5, X4
	VPSHUFD      $0xb1, X4, X5
	VPADDD       X4, X5, X4
	VMOVD        X4, AX
	IMULL        R8, AX
	MOVL         AX, 36(DI)
	VPACKSSDW    Y1, Y0, Y0
	VPACKSSDW    Y3, Y2, Y2
	VPACKSSWB    Y2, Y0, Y0
	VPERMD       Y0, Y15, Y0
	VMOVDQU      Y0, 0(DI)

quantNext:
	ADDQ $128, SI
	ADDQ $40, DI
	DECQ CX
	JNE  quantGroup
	VZEROUPPER
	RET

quantNaN:
	MOVQ $0x7fc00000, AX
	JMP  quantNone

quantZero:
	XORL AX, AX

quantNone:
	VPXOR   Y0, Y0, Y0
	VMOVDQU Y0, 0(DI)
	MOVQ    AX, 32(DI)
	JMP     quantNext

DATA unpack<>+0(SB)/4, $0
DATA unpack<>+4(SB)/4, $4
DATA unpack<>+8(SB)/4, $1
DATA unpack<>+12(SB)/4, $5
DATA unpack<>+16(SB)/4, $2
DATA unpack<>+20(SB)/4, $6
DATA unpack<>+24(SB)/4, $3
DATA unpack<>+28(SB)/4, $7
GLOBL unpack<>(SB), RODATA|NOPTR, $32

// func roundAVX2(dst, x *float32, n int)
// Reference: roundRowGeneric. n is a multiple of 8, more than 0.
TEXT ·roundAVX2(SB), NOSPLIT, $0-24
	MOVQ     dst+0(FP), DI
	MOVQ     x+8(FP), SI
	MOVQ     n+16(FP), CX
	VPCMPEQD Y15, Y15, Y15
	VPSRLD   $31, Y15, Y12           // 1
	VPSRLD   $17, Y15, Y13           // 0x7fff
	VPSLLD   $16, Y15, Y14           // the upper halves
	VPSLLD   $22, Y12, Y11           // the quiet bit

round8:
	VMOVUPS   (SI), Y0
	VPSRLD    $16, Y0, Y1
	VPAND     Y12, Y1, Y1
	VPADDD    Y13, Y1, Y1
	VPADDD    Y0, Y1, Y1             // + 0x7fff + the last bit that stays
	VPOR      Y11, Y0, Y2
	VCMPPS    $3, Y0, Y0, Y3         // NaN
	VBLENDVPS Y3, Y2, Y1, Y1
	VPAND     Y14, Y1, Y1
	VMOVUPS   Y1, (DI)
	ADDQ      $32, SI
	ADDQ      $32, DI
	SUBQ      $8, CX
	JNE       round8
	VZEROUPPER
	RET
