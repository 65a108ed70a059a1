//go:build !purego

#include "textflag.h"

// Attention on AVX2 and FMA, written once for the three forms of keys and values: a macro takes WIDEN, which loads eight elements
// (into a Y register) or four (into an X register, zeros above) as float32, and SIZE, the bytes of an element. Queries go three by
// three, a rest of four two by two. dim is a multiple of four; neither queries nor keys are zero.

// Keys and values are fetched AHEAD into the second-level cache, for every 32 elements a line or (f32) the pair of lines that comes
// with it: the hardware alone stops at every page. A fetch of what is not there is nothing.
#define AHEAD 8192

#define FETCHF32(off, r) \
	PREFETCHT1 (AHEAD+off)(r)    \
	PREFETCHT1 (AHEAD+off+64)(r)

#define FETCHF16(off, r) \
	PREFETCHT1 (AHEAD+off)(r)

#define FETCHINT8(off, r) \
	PREFETCHT1 (AHEAD+off)(r)

#define WIDENF32(m, y) \
	VMOVUPS m, y

#define WIDENF16(m, y) \
	VCVTPH2PS m, y

#define WIDENINT8(m, y) \
	VPMOVSXBD m, y \
	VCVTDQ2PS y, y

#define FMA3(a, b, c) \
	VFMADD231PS Y15, Y12, a \
	VFMADD231PS Y15, Y13, b \
	VFMADD231PS Y15, Y14, c

#define FMA2(a, b, c) \
	VFMADD231PS Y15, Y12, a \
	VFMADD231PS Y15, Y13, b

#define FMA1(a, b, c) \
	VFMADD231PS Y15, Y12, a

// The sums of a, b, c, d, each ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)), go side by side to m.
#define SUM4(a, b, c, d, xa, m) \
	VBLENDPS     $0xf0, b, a, Y12    \
	VPERM2F128   $0x21, b, a, Y13    \
	VADDPS       Y13, Y12, a         \ // s0+s4 … s3+s7 of a and b
	VBLENDPS     $0xf0, d, c, Y14    \
	VPERM2F128   $0x21, d, c, Y15    \
	VADDPS       Y15, Y14, c         \
	VBLENDPS     $0xcc, c, a, Y12    \
	VSHUFPS      $0x4e, c, a, Y13    \
	VADDPS       Y13, Y12, a         \ // two sums of a, two of c; of b, of d
	VPERMILPS    $0xb1, a, Y12       \
	VADDPS       Y12, a, a           \
	VEXTRACTF128 $1, a, X12          \
	VBLENDPS     $0xa, X12, xa, X12  \
	VMOVUPS      X12, m

// Queries AX of four elements or eight, from the walking pointer.
#define Q3(x, y, z) \
	VMOVUPS (AX), x         \
	VMOVUPS (AX)(R9*1), y   \
	VMOVUPS (AX)(R9*2), z

#define Q2(x, y, z) \
	VMOVUPS (AX), x       \
	VMOVUPS (AX)(R9*1), y

#define Q1(x, y, z) \
	VMOVUPS (AX), x

#define SUMS3 \
	SUM4(Y0, Y3, Y6, Y9, X0, (R13))          \
	SUM4(Y1, Y4, Y7, Y10, X1, (R13)(R8*1))   \
	SUM4(Y2, Y5, Y8, Y11, X2, (R13)(R8*2))

#define SUMS2 \
	SUM4(Y0, Y3, Y6, Y9, X0, (R13))         \
	SUM4(Y1, Y4, Y7, Y10, X1, (R13)(R8*1))

#define SUMS1 \
	SUM4(Y0, Y3, Y6, Y9, X0, (R13))

// Four keys at R11 for one, two or three queries at SI: the scores go to R13. An accumulator is eight lanes of a score:
//
//	       q0  q1  q2
//	key 0  Y0  Y1  Y2
//	key 1  Y3  Y4  Y5
//	key 2  Y6  Y7  Y8
//	key 3  Y9  Y10 Y11
//
// R12 keys are left; fewer than four go to rest. BX walks along the keys, for the fetches.
#define KEYS4(four, eight, tail, sums, Q, FMA, SUMS, WIDEN, FETCH, SIZE) \
four: \
	CMPQ   R12, $4             \
	JLT    rest                \
	VXORPS Y0, Y0, Y0          \
	VXORPS Y1, Y1, Y1          \
	VXORPS Y2, Y2, Y2          \
	VXORPS Y3, Y3, Y3          \
	VXORPS Y4, Y4, Y4          \
	VXORPS Y5, Y5, Y5          \
	VXORPS Y6, Y6, Y6          \
	VXORPS Y7, Y7, Y7          \
	VXORPS Y8, Y8, Y8          \
	VXORPS Y9, Y9, Y9          \
	VXORPS Y10, Y10, Y10       \
	VXORPS Y11, Y11, Y11       \
	MOVQ   SI, AX              \
	LEAQ   (R10)(R10*2), R15   \
	ADDQ   R11, R15            \
	MOVQ   dim+48(FP), R14     \
	SHRQ   $3, R14             \
	JEQ    tail                \
	PCALIGN $32 \
eight: \
	FETCH(0, BX)                \
	ADDQ   $(32*SIZE), BX      \
	Q(Y12, Y13, Y14)           \
	WIDEN((R11), Y15)          \
	FMA(Y0, Y1, Y2)            \
	WIDEN((R11)(R10*1), Y15)   \
	FMA(Y3, Y4, Y5)            \
	WIDEN((R11)(R10*2), Y15)   \
	FMA(Y6, Y7, Y8)            \
	WIDEN((R15), Y15)          \
	FMA(Y9, Y10, Y11)          \
	ADDQ   $32, AX             \
	ADDQ   $(8*SIZE), R11      \
	ADDQ   $(8*SIZE), R15      \
	DECQ   R14                 \
	JNE    eight               \
tail: \
	TESTQ  $4, dim+48(FP)      \
	JEQ    sums                \
	Q(X12, X13, X14)           \
	WIDEN((R11), X15)          \
	FMA(Y0, Y1, Y2)            \
	WIDEN((R11)(R10*1), X15)   \
	FMA(Y3, Y4, Y5)            \
	WIDEN((R11)(R10*2), X15)   \
	FMA(Y6, Y7, Y8)            \
	WIDEN((R15), X15)          \
	FMA(Y9, Y10, Y11)          \
	ADDQ   $(4*SIZE), R15      \
sums: \
	SUMS                       \
	MOVQ   R15, R11            \
	ADDQ   $16, R13            \
	SUBQ   $4, R12             \
	JMP    four

// DI dst, R8 its stride in bytes   SI q, R9 its row in bytes, CX queries left, at (SP) those of this turn
// DX k, R10 its row in bytes       R11 key, R12 keys left, R13 its scores
#define SCORE(WIDEN, FETCH, SIZE) \
	MOVQ         dst+0(FP), DI      \
	MOVQ         stride+8(FP), R8   \
	SHLQ         $2, R8             \
	MOVQ         q+16(FP), SI       \
	MOVQ         queries+24(FP), CX \
	MOVQ         k+32(FP), DX       \
	MOVQ         dim+48(FP), R9     \
	IMUL3Q       $SIZE, R9, R10     \
	SHLQ         $2, R9             \
turn: \
	MOVQ         DX, R11            \
	MOVQ         keys+40(FP), R12   \
	MOVQ         DI, R13            \
	MOVQ         DX, BX             \
	MOVQ         $2, turn-8(SP)     \
	CMPQ         CX, $4             \
	JEQ          two                \
	CMPQ         CX, $2             \
	JEQ          two                \
	MOVQ         $1, turn-8(SP)     \
	JLT          one                \
	MOVQ         $3, turn-8(SP)     \
	KEYS4(three, threeEight, threeTail, threeSums, Q3, FMA3, SUMS3, WIDEN, FETCH, SIZE) \
	KEYS4(two, twoEight, twoTail, twoSums, Q2, FMA2, SUMS2, WIDEN, FETCH, SIZE) \
	KEYS4(one, oneEight, oneTail, oneSums, Q1, FMA1, SUMS1, WIDEN, FETCH, SIZE) \
rest: \ // one key at R11, with one query after the other: R15 query, R14 its score, AX queries left
	TESTQ        R12, R12           \
	JEQ          next               \
	MOVQ         SI, R15            \
	MOVQ         R13, R14           \
	MOVQ         turn-8(SP), AX     \
query: \
	VXORPS       Y0, Y0, Y0         \
	MOVQ         dim+48(FP), BX     \
	SHRQ         $3, BX             \
	JEQ          queryTail          \
queryEight: \
	VMOVUPS      (R15), Y12         \
	WIDEN((R11), Y15)               \
	VFMADD231PS  Y15, Y12, Y0       \
	ADDQ         $32, R15           \
	ADDQ         $(8*SIZE), R11     \
	DECQ         BX                 \
	JNE          queryEight         \
queryTail: \
	TESTQ        $4, dim+48(FP)     \
	JEQ          querySum           \
	VMOVUPS      (R15), X12         \
	WIDEN((R11), X15)               \
	VFMADD231PS  Y15, Y12, Y0       \
	ADDQ         $16, R15           \
	ADDQ         $(4*SIZE), R11     \
querySum: \
	VEXTRACTF128 $1, Y0, X1         \
	VADDPS       X1, X0, X0         \
	VPERMILPS    $0x4e, X0, X1      \
	VADDPS       X1, X0, X0         \
	VMOVSHDUP    X0, X1             \
	VADDSS       X1, X0, X0         \
	VMOVSS       X0, (R14)          \
	SUBQ         R10, R11           \
	ADDQ         R8, R14            \
	DECQ         AX                 \
	JNE          query              \
	ADDQ         R10, R11           \
	ADDQ         $4, R13            \
	DECQ         R12                \
	JMP          rest               \
next: \
	MOVQ         turn-8(SP), AX     \
	SUBQ         AX, CX             \
	JEQ          done               \
	MOVQ         AX, R11            \
	IMULQ        R9, R11            \
	ADDQ         R11, SI            \
	IMULQ        R8, AX             \
	ADDQ         AX, DI             \
	JMP          turn               \
done: \
	VZEROUPPER                      \
	RET

// Eight sums of each query at DI+off, from and to memory.
#define GET3(off, a, b, c) \
	VMOVUPS off(DI), a       \
	VMOVUPS off(DI)(R9*1), b \
	VMOVUPS off(DI)(R9*2), c

#define PUT3(off, a, b, c) \
	VMOVUPS a, off(DI)       \
	VMOVUPS b, off(DI)(R9*1) \
	VMOVUPS c, off(DI)(R9*2)

#define GET2(off, a, b, c) \
	VMOVUPS off(DI), a       \
	VMOVUPS off(DI)(R9*1), b

#define PUT2(off, a, b, c) \
	VMOVUPS a, off(DI)       \
	VMOVUPS b, off(DI)(R9*1)

#define GET1(off, a, b, c) \
	VMOVUPS off(DI), a

#define PUT1(off, a, b, c) \
	VMOVUPS a, off(DI)

// The queries' weights of a key.
#define P3 \
	VBROADCASTSS (R12), Y12       \
	VBROADCASTSS (R12)(R8*1), Y13 \
	VBROADCASTSS (R12)(R8*2), Y14

#define P2 \
	VBROADCASTSS (R12), Y12       \
	VBROADCASTSS (R12)(R8*1), Y13

#define P1 \
	VBROADCASTSS (R12), Y12

// A band of the sums, 32, 16, 8 or 4 elements wide, stays in registers while all keys pass. AX elements are left.
#define BEGIN \
	MOVQ DX, R11 \
	MOVQ SI, R12 \
	MOVQ BX, R13

#define NEXT(again) \
	ADDQ R10, R11 \
	ADDQ $4, R12  \
	DECQ R13      \
	JNE  again

#define LEAVE(n, SIZE) \
	ADDQ $(4*n), DI    \
	ADDQ $(n*SIZE), DX \
	SUBQ $n, AX

#define BANDS(b32, k32, b16, k16, b8, k8, b4, k4, P, GET, FMA, PUT, WIDEN, FETCH, SIZE) \
b32: \
	CMPQ AX, $32             \
	JLT  b16                 \
	BEGIN                    \
	GET(0, Y0, Y1, Y2)       \
	GET(32, Y3, Y4, Y5)      \
	GET(64, Y6, Y7, Y8)      \
	GET(96, Y9, Y10, Y11)    \
	PCALIGN $32 \
k32: \
	FETCH(0, R11)             \
	P                        \
	WIDEN((R11), Y15)        \
	FMA(Y0, Y1, Y2)          \
	WIDEN((8*SIZE)(R11), Y15) \
	FMA(Y3, Y4, Y5)          \
	WIDEN((16*SIZE)(R11), Y15) \
	FMA(Y6, Y7, Y8)          \
	WIDEN((24*SIZE)(R11), Y15) \
	FMA(Y9, Y10, Y11)        \
	NEXT(k32)                \
	PUT(0, Y0, Y1, Y2)       \
	PUT(32, Y3, Y4, Y5)      \
	PUT(64, Y6, Y7, Y8)      \
	PUT(96, Y9, Y10, Y11)    \
	LEAVE(32, SIZE)          \
	JMP  b32                 \
b16: \
	CMPQ AX, $16             \
	JLT  b8                  \
	BEGIN                    \
	GET(0, Y0, Y1, Y2)       \
	GET(32, Y3, Y4, Y5)      \
	PCALIGN $32 \
k16: \
	FETCH(0, R11)             \
	P                        \
	WIDEN((R11), Y15)        \
	FMA(Y0, Y1, Y2)          \
	WIDEN((8*SIZE)(R11), Y15) \
	FMA(Y3, Y4, Y5)          \
	NEXT(k16)                \
	PUT(0, Y0, Y1, Y2)       \
	PUT(32, Y3, Y4, Y5)      \
	LEAVE(16, SIZE)          \
b8: \
	CMPQ AX, $8              \
	JLT  b4                  \
	BEGIN                    \
	GET(0, Y0, Y1, Y2)       \
	PCALIGN $32 \
k8: \
	P                        \
	WIDEN((R11), Y15)        \
	FMA(Y0, Y1, Y2)          \
	NEXT(k8)                 \
	PUT(0, Y0, Y1, Y2)       \
	LEAVE(8, SIZE)           \
b4: \
	TESTQ AX, AX             \
	JEQ  next                \
	BEGIN                    \
	GET(0, X0, X1, X2)       \
	PCALIGN $32 \
k4: \
	P                        \
	WIDEN((R11), X15)        \
	FMA(Y0, Y1, Y2)          \
	NEXT(k4)                 \
	PUT(0, X0, X1, X2)       \
	LEAVE(4, SIZE)           \
	JMP  next

// DI dst, R9 its row in bytes, CX queries left, at (SP) those of this turn
// SI p, R8 its stride in bytes   DX v, R10 its row in bytes   BX keys
#define MIX(WIDEN, FETCH, SIZE) \
	MOVQ  dst+0(FP), DI     \
	MOVQ  queries+8(FP), CX \
	MOVQ  p+16(FP), SI      \
	MOVQ  stride+24(FP), R8 \
	SHLQ  $2, R8            \
	MOVQ  v+32(FP), DX      \
	MOVQ  keys+40(FP), BX   \
	MOVQ  dim+48(FP), R9    \
	IMUL3Q$SIZE, R9, R10    \
	SHLQ  $2, R9            \
turn: \
	MOVQ  dim+48(FP), AX    \
	MOVQ  $2, turn-8(SP)    \
	CMPQ  CX, $4            \
	JEQ   two               \
	CMPQ  CX, $2            \
	JEQ   two               \
	MOVQ  $1, turn-8(SP)    \
	JLT   one               \
	MOVQ  $3, turn-8(SP)    \
	BANDS(three, three32, threeB16, three16, threeB8, three8, threeB4, three4, P3, GET3, FMA3, PUT3, WIDEN, FETCH, SIZE) \
	BANDS(two, two32, twoB16, two16, twoB8, two8, twoB4, two4, P2, GET2, FMA2, PUT2, WIDEN, FETCH, SIZE) \
one: \ // a band of 64 keeps enough sums in flight for a query alone
	CMPQ  AX, $64           \
	JLT   oneB32            \
	BEGIN                   \
	VMOVUPS 0(DI), Y0       \
	VMOVUPS 32(DI), Y1      \
	VMOVUPS 64(DI), Y2      \
	VMOVUPS 96(DI), Y3      \
	VMOVUPS 128(DI), Y4     \
	VMOVUPS 160(DI), Y5     \
	VMOVUPS 192(DI), Y6     \
	VMOVUPS 224(DI), Y7     \
	PCALIGN $32 \
one64: \
	FETCH(0, R11)            \
	FETCH(32*SIZE, R11)   \
	P1                      \
	WIDEN((R11), Y15)       \
	FMA1(Y0, Y0, Y0)        \
	WIDEN((8*SIZE)(R11), Y15) \
	FMA1(Y1, Y1, Y1)        \
	WIDEN((16*SIZE)(R11), Y15) \
	FMA1(Y2, Y2, Y2)        \
	WIDEN((24*SIZE)(R11), Y15) \
	FMA1(Y3, Y3, Y3)        \
	WIDEN((32*SIZE)(R11), Y15) \
	FMA1(Y4, Y4, Y4)        \
	WIDEN((40*SIZE)(R11), Y15) \
	FMA1(Y5, Y5, Y5)        \
	WIDEN((48*SIZE)(R11), Y15) \
	FMA1(Y6, Y6, Y6)        \
	WIDEN((56*SIZE)(R11), Y15) \
	FMA1(Y7, Y7, Y7)        \
	NEXT(one64)             \
	VMOVUPS Y0, 0(DI)       \
	VMOVUPS Y1, 32(DI)      \
	VMOVUPS Y2, 64(DI)      \
	VMOVUPS Y3, 96(DI)      \
	VMOVUPS Y4, 128(DI)     \
	VMOVUPS Y5, 160(DI)     \
	VMOVUPS Y6, 192(DI)     \
	VMOVUPS Y7, 224(DI)     \
	LEAVE(64, SIZE)         \
	JMP   one               \
	BANDS(oneB32, one32, oneB16, one16, oneB8, one8, oneB4, one4, P1, GET1, FMA1, PUT1, WIDEN, FETCH, SIZE) \
next: \ // DI and DX stand behind their first row
	SUBQ  R10, DX           \
	MOVQ  turn-8(SP), AX    \
	SUBQ  AX, CX            \
	JEQ   done              \
	MOVQ  AX, R11           \
	IMULQ R8, R11           \
	ADDQ  R11, SI           \
	DECQ  AX                \
	IMULQ R9, AX            \
	ADDQ  AX, DI            \
	JMP   turn              \
done: \
	VZEROUPPER              \
	RET

// func scoreF32AVX2(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)
// Reference: scoreF32Generic, up to rounding.
TEXT ·scoreF32AVX2(SB), NOSPLIT, $8-56
	SCORE(WIDENF32, FETCHF32, 4)

// func scoreF16AVX2(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)
// Reference: scoreF16Generic, up to rounding.
TEXT ·scoreF16AVX2(SB), NOSPLIT, $8-56
	SCORE(WIDENF16, FETCHF16, 2)

// func scoreInt8AVX2(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)
// Reference: scoreInt8Generic, up to rounding.
TEXT ·scoreInt8AVX2(SB), NOSPLIT, $8-56
	SCORE(WIDENINT8, FETCHINT8, 1)

// func mixF32AVX2(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32AVX2(SB), NOSPLIT, $8-56
	MIX(WIDENF32, FETCHF32, 4)

// func mixF16AVX2(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16AVX2(SB), NOSPLIT, $8-56
	MIX(WIDENF16, FETCHF16, 2)

// func mixInt8AVX2(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8AVX2(SB), NOSPLIT, $8-56
	MIX(WIDENINT8, FETCHINT8, 1)
