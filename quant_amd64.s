//go:build !purego

#include "textflag.h"

// Blocks of int8 and int4 groups on AVX2, in the frame of matmul_amd64.s: DI, R8 dst; SI, R9 groups of activations;
// CX rows left; DX w; BX groups; R10 w, R12 x, R11 groups left, R13 the step within a group.
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

#define ZEROSUMS(a, b, c, d) \
	VPXOR a, a, a \
	VPXOR b, b, b \
	VPXOR c, c, c \
	VPXOR d, d, d

// Y14 = w as signed bytes, of 8 outputs × 4 inputs.
#define INT8W(w) \
	VPXOR w, Y9, Y14

// sum += w · x, where |x| is the unsigned factor and w takes the sign of x: 127·127·2 does not saturate.
#define INT8DOT(x, absx, sum) \
	VPSIGNB    x, Y14, Y15    \
	VPMADDUBSW Y15, absx, Y15 \
	VPMADDWD   Y8, Y15, Y15   \
	VPADDD     Y15, sum, sum

// func mulBlockInt8AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt8Generic, the same bits.
TEXT ·mulBlockInt8AVX2(SB), NOSPLIT, $0-57
	MOVQ     dst+0(FP), DI
	MOVQ     stride+8(FP), R8
	SHLQ     $2, R8
	MOVQ     x+16(FP), SI
	MOVQ     xStride+24(FP), R9
	IMUL3Q   $40, R9, R9
	MOVQ     rows+32(FP), CX
	MOVQ     w+40(FP), DX
	MOVQ     groups+48(FP), BX
	MOVBLZX  add+56(FP), AX
	VPCMPEQW Y8, Y8, Y8
	VPSRLW   $15, Y8, Y8             // 1 in every word
	VPSLLW   $7, Y8, Y9
	VPACKUSWB Y9, Y9, Y9             // 0x80 in every byte

int8tile:
	MOVQ DX, R10
	MOVQ SI, R12
	MOVQ BX, R11
	CMPQ CX, $2
	JGE  int8two
	CMPQ CX, $1
	JEQ  int8one
	VZEROUPPER
	RET

int8two:
	LEAQ  (DI)(R8*1), R15
	TESTL AX, AX
	JNE   int8twoGroup
	VPXOR Y15, Y15, Y15
	CLEAR4(DI)
	CLEAR4(R15)

int8twoGroup:
	ZEROSUMS(Y0, Y1, Y2, Y3)
	ZEROSUMS(Y4, Y5, Y6, Y7)
	MOVQ $8, R13

int8twoK:
	FETCH(R10)
	VPBROADCASTD (R12), Y10
	VPBROADCASTD (R12)(R9*1), Y12
	VPABSB       Y10, Y11
	VPABSB       Y12, Y13
	INT8W(64(R10))
	INT8DOT(Y10, Y11, Y0)
	INT8DOT(Y12, Y13, Y4)
	INT8W(96(R10))
	INT8DOT(Y10, Y11, Y1)
	INT8DOT(Y12, Y13, Y5)
	INT8W(128(R10))
	INT8DOT(Y10, Y11, Y2)
	INT8DOT(Y12, Y13, Y6)
	INT8W(160(R10))
	INT8DOT(Y10, Y11, Y3)
	INT8DOT(Y12, Y13, Y7)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R13
	JNE          int8twoK
	FETCH64(R10)
	VBROADCASTSS (R12), Y12
	SCALE8(-1024(R10), 0(DI), Y0)
	SCALE8(-1008(R10), 32(DI), Y1)
	SCALE8(-992(R10), 64(DI), Y2)
	SCALE8(-976(R10), 96(DI), Y3)
	VBROADCASTSS (R12)(R9*1), Y12
	SCALE8(-1024(R10), 0(R15), Y4)
	SCALE8(-1008(R10), 32(R15), Y5)
	SCALE8(-992(R10), 64(R15), Y6)
	SCALE8(-976(R10), 96(R15), Y7)
	ADDQ         $8, R12
	ADDQ         $64, R10
	DECQ         R11
	JNE          int8twoGroup
	LEAQ         (R15)(R8*1), DI
	LEAQ         (SI)(R9*2), SI
	SUBQ         $2, CX
	JMP          int8tile

int8one:
	TESTL AX, AX
	JNE   int8oneGroup
	VPXOR Y15, Y15, Y15
	CLEAR4(DI)

int8oneGroup:
	ZEROSUMS(Y0, Y1, Y2, Y3)
	MOVQ $8, R13

int8oneK:
	FETCH(R10)
	VPBROADCASTD (R12), Y10
	VPABSB       Y10, Y11
	INT8W(64(R10))
	INT8DOT(Y10, Y11, Y0)
	INT8W(96(R10))
	INT8DOT(Y10, Y11, Y1)
	INT8W(128(R10))
	INT8DOT(Y10, Y11, Y2)
	INT8W(160(R10))
	INT8DOT(Y10, Y11, Y3)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R13
	JNE          int8oneK
	FETCH64(R10)
	VBROADCASTSS (R12), Y12
	SCALE8(-1024(R10), 0(DI), Y0)
	SCALE8(-1008(R10), 32(DI), Y1)
	SCALE8(-992(R10), 64(DI), Y2)
	SCALE8(-976(R10), 96(DI), Y3)
	ADDQ         $8, R12
	ADDQ         $64, R10
	DECQ         R11
	JNE          int8oneGroup
	VZEROUPPER
	RET

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

// Words to int32, and the bias p of the row. Y10 is 1 in every word.
#define INT4SUM(p, a, b, c, d) \
	VPBROADCASTD p, Y13       \
	VPMADDWD     Y10, a, a    \
	VPMADDWD     Y10, b, b    \
	VPMADDWD     Y10, c, c    \
	VPMADDWD     Y10, d, d    \
	VPADDD       Y13, a, a    \
	VPADDD       Y13, b, b    \
	VPADDD       Y13, c, c    \
	VPADDD       Y13, d, d

// func mulBlockInt4AVX2(dst *float32, stride int, x *quantGroup, xStride, rows int, w *byte, groups int, add bool)
// Reference: mulBlockInt4Generic, the same bits.
TEXT ·mulBlockInt4AVX2(SB), NOSPLIT, $0-57
	MOVQ      dst+0(FP), DI
	MOVQ      stride+8(FP), R8
	SHLQ      $2, R8
	MOVQ      x+16(FP), SI
	MOVQ      xStride+24(FP), R9
	IMUL3Q    $40, R9, R9
	MOVQ      rows+32(FP), CX
	MOVQ      w+40(FP), DX
	MOVQ      groups+48(FP), BX
	MOVBLZX   add+56(FP), AX
	VPCMPEQW  Y9, Y9, Y9
	VPSRLW    $12, Y9, Y9
	VPACKUSWB Y9, Y9, Y9

int4tile:
	MOVQ DX, R10
	MOVQ SI, R12
	MOVQ BX, R11
	CMPQ CX, $2
	JGE  int4two
	CMPQ CX, $1
	JEQ  int4one
	VZEROUPPER
	RET

int4two:
	LEAQ  (DI)(R8*1), R15
	TESTL AX, AX
	JNE   int4twoGroup
	VPXOR Y15, Y15, Y15
	CLEAR4(DI)
	CLEAR4(R15)

int4twoGroup:
	ZEROSUMS(Y0, Y1, Y2, Y3)
	ZEROSUMS(Y4, Y5, Y6, Y7)
	MOVQ $4, R13

int4twoK:
	FETCH(R10)
	VPBROADCASTD 0(R12), Y10
	VPBROADCASTD 16(R12), Y11
	VPBROADCASTD 0(R12)(R9*1), Y12
	VPBROADCASTD 16(R12)(R9*1), Y8
	INT4W(64(R10))
	INT4DOT(Y10, Y11, Y0)
	INT4DOT(Y12, Y8, Y4)
	INT4W(96(R10))
	INT4DOT(Y10, Y11, Y1)
	INT4DOT(Y12, Y8, Y5)
	INT4W(128(R10))
	INT4DOT(Y10, Y11, Y2)
	INT4DOT(Y12, Y8, Y6)
	INT4W(160(R10))
	INT4DOT(Y10, Y11, Y3)
	INT4DOT(Y12, Y8, Y7)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R13
	JNE          int4twoK
	FETCH64(R10)
	VPCMPEQW     Y10, Y10, Y10
	VPSRLW       $15, Y10, Y10
	INT4SUM(20(R12), Y0, Y1, Y2, Y3)
	INT4SUM(20(R12)(R9*1), Y4, Y5, Y6, Y7)
	VBROADCASTSS 16(R12), Y12
	SCALE8(-512(R10), 0(DI), Y0)
	SCALE8(-496(R10), 32(DI), Y1)
	SCALE8(-480(R10), 64(DI), Y2)
	SCALE8(-464(R10), 96(DI), Y3)
	VBROADCASTSS 16(R12)(R9*1), Y12
	SCALE8(-512(R10), 0(R15), Y4)
	SCALE8(-496(R10), 32(R15), Y5)
	SCALE8(-480(R10), 64(R15), Y6)
	SCALE8(-464(R10), 96(R15), Y7)
	ADDQ         $24, R12
	ADDQ         $64, R10
	DECQ         R11
	JNE          int4twoGroup
	LEAQ         (R15)(R8*1), DI
	LEAQ         (SI)(R9*2), SI
	SUBQ         $2, CX
	JMP          int4tile

int4one:
	TESTL AX, AX
	JNE   int4oneGroup
	VPXOR Y15, Y15, Y15
	CLEAR4(DI)

int4oneGroup:
	ZEROSUMS(Y0, Y1, Y2, Y3)
	MOVQ $4, R13

int4oneK:
	FETCH(R10)
	VPBROADCASTD 0(R12), Y10
	VPBROADCASTD 16(R12), Y11
	INT4W(64(R10))
	INT4DOT(Y10, Y11, Y0)
	INT4W(96(R10))
	INT4DOT(Y10, Y11, Y1)
	INT4W(128(R10))
	INT4DOT(Y10, Y11, Y2)
	INT4W(160(R10))
	INT4DOT(Y10, Y11, Y3)
	ADDQ         $4, R12
	ADDQ         $128, R10
	DECQ         R13
	JNE          int4oneK
	FETCH64(R10)
	VPCMPEQW     Y10, Y10, Y10
	VPSRLW       $15, Y10, Y10
	INT4SUM(20(R12), Y0, Y1, Y2, Y3)
	VBROADCASTSS 16(R12), Y12
	SCALE8(-512(R10), 0(DI), Y0)
	SCALE8(-496(R10), 32(DI), Y1)
	SCALE8(-480(R10), 64(DI), Y2)
	SCALE8(-464(R10), 96(DI), Y3)
	ADDQ         $24, R12
	ADDQ         $64, R10
	DECQ         R11
	JNE          int4oneGroup
	VZEROUPPER
	RET

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
