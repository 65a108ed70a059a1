//go:build !purego

#include "textflag.h"
#include "words_arm64.h"

// Attention on NEON, in the order of the AVX2 kernels and so with their bits. Written once for the three forms of keys and values:
// WIDEN loads eight elements at p as float32 into V30 and V31 and moves p on, HALF four into V30. Queries go three by three, a rest
// of four two by two. dim is a multiple of four; neither queries nor keys are zero.

#define WIDENF32(p) \
	FLDPQ.P 32(p), (F30, F31)

#define HALFF32(p) \
	FMOVQ.P 16(p), F30

#define WIDENF16(p) \
	FMOVQ.P 16(p), F30 \
	FCVTL2(31, 30)     \
	FCVTL(30, 30)

#define HALFF16(p) \
	FMOVD.P 8(p), F30 \
	FCVTL(30, 30)

#define WIDENINT8(p) \
	FMOVD.P 8(p), F30 \
	SXTLB(30, 30)     \
	SXTLH2(31, 30)    \
	SXTLH(30, 30)     \
	SCVTFV(31, 31)    \
	SCVTFV(30, 30)

#define HALFINT8(p) \
	FMOVS.P 4(p), F30 \
	SXTLB(30, 30)     \
	SXTLH(30, 30)     \
	SCVTFV(30, 30)

#define ZERO8(a) \
	ZEROV(a)   \
	ZEROV(a+1) \
	ZEROV(a+2) \
	ZEROV(a+3) \
	ZEROV(a+4) \
	ZEROV(a+5) \
	ZEROV(a+6) \
	ZEROV(a+7)

// Four keys for one, two or three queries. The eight lanes of a score are two accumulators:
//
//	          q0        q1        q2
//	key k  V6k,6k+1  V6k+2,3   V6k+4,5
//
// V24 … V29 are eight elements of the queries, V30 and V31 of a key.
#define Q3 \
	FLDPQ.P 32(R17), (F24, F25) \
	FLDPQ.P 32(R19), (F26, F27) \
	FLDPQ.P 32(R20), (F28, F29)

#define Q2 \
	FLDPQ.P 32(R17), (F24, F25) \
	FLDPQ.P 32(R19), (F26, F27)

#define Q1 \
	FLDPQ.P 32(R17), (F24, F25)

#define QHALF3 \
	FMOVQ.P 16(R17), F24 \
	FMOVQ.P 16(R19), F26 \
	FMOVQ.P 16(R20), F28

#define QHALF2 \
	FMOVQ.P 16(R17), F24 \
	FMOVQ.P 16(R19), F26

#define QHALF1 \
	FMOVQ.P 16(R17), F24

#define DOTS1(k) \
	FMLAV(6*k, 30, 24)   \
	FMLAV(6*k+1, 31, 25)

#define DOTS2(k) \
	DOTS1(k)             \
	FMLAV(6*k+2, 30, 26) \
	FMLAV(6*k+3, 31, 27)

#define DOTS3(k) \
	DOTS2(k)             \
	FMLAV(6*k+4, 30, 28) \
	FMLAV(6*k+5, 31, 29)

#define DOTSHALF1(k) \
	FMLAV(6*k, 30, 24)

#define DOTSHALF2(k) \
	FMLAV(6*k, 30, 24)   \
	FMLAV(6*k+2, 30, 26)

#define DOTSHALF3(k) \
	FMLAV(6*k, 30, 24)   \
	FMLAV(6*k+2, 30, 26) \
	FMLAV(6*k+4, 30, 28)

// The sums of query q with four keys, each ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)), go side by side to R22, which moves to the next row.
#define SUM4(q) \
	FADDV(2*q, 2*q, 2*q+1)          \
	FADDV(6+2*q, 6+2*q, 6+2*q+1)    \
	FADDV(12+2*q, 12+2*q, 12+2*q+1) \
	FADDV(18+2*q, 18+2*q, 18+2*q+1) \
	ZIP1D(24, 2*q, 6+2*q)           \
	ZIP2D(25, 2*q, 6+2*q)           \
	ZIP1D(26, 12+2*q, 18+2*q)       \
	ZIP2D(27, 12+2*q, 18+2*q)       \
	FADDV(24, 24, 25)               \
	FADDV(26, 26, 27)               \
	FADDPV(24, 24, 26)              \
	FMOVQ F24, (R22)                \
	ADD   R1, R22

#define SUMS1 SUM4(0)

#define SUMS2 \
	SUM4(0) \
	SUM4(1)

#define SUMS3 \
	SUM4(0) \
	SUM4(1) \
	SUM4(2)

#define KEYS4(four, eight, tail, sums, Q, QHALF, DOTS, DOTSHALF, SUMS, WIDEN, HALF) \
four: \
	CMP  $4, R10      \
	BLT  rest         \
	ZERO8(0)          \
	ZERO8(8)          \
	ZERO8(16)         \
	MOVD R2, R17      \
	ADD  R7, R17, R19 \
	ADD  R7, R19, R20 \
	MOVD R9, R13      \
	ADD  R8, R13, R14 \
	ADD  R8, R14, R15 \
	ADD  R8, R15, R16 \
	LSR  $3, R6, R21  \
	CBZ  R21, tail    \
eight: \
	Q                 \
	WIDEN(R13)        \
	DOTS(0)           \
	WIDEN(R14)        \
	DOTS(1)           \
	WIDEN(R15)        \
	DOTS(2)           \
	WIDEN(R16)        \
	DOTS(3)           \
	SUB  $1, R21      \
	CBNZ R21, eight   \
tail: \
	TBZ  $2, R6, sums \
	QHALF             \
	HALF(R13)         \
	DOTSHALF(0)       \
	HALF(R14)         \
	DOTSHALF(1)       \
	HALF(R15)         \
	DOTSHALF(2)       \
	HALF(R16)         \
	DOTSHALF(3)       \
sums: \
	MOVD R11, R22     \
	SUMS              \
	MOVD R16, R9      \
	ADD  $16, R11     \
	SUB  $4, R10      \
	B    four

// R0 dst, R1 its stride in bytes   R2 q, R7 its row in bytes, R3 queries left, R12 those of this turn
// R4 k, R8 its row in bytes, R5 keys, R6 dim   R9 key, R10 keys left, R11 its scores
#define SCORE(WIDEN, HALF, SHIFT) \
	LSL   $2, R1          \
	LSL   $2, R6, R7      \
	LSL   $SHIFT, R6, R8  \
turn: \
	MOVD  R4, R9          \
	MOVD  R5, R10         \
	MOVD  R0, R11         \
	MOVD  $2, R12         \
	CMP   $4, R3          \
	BEQ   two             \
	CMP   $2, R3          \
	BEQ   two             \
	MOVD  $1, R12         \
	BLT   one             \
	MOVD  $3, R12         \
	KEYS4(three, threeEight, threeTail, threeSums, Q3, QHALF3, DOTS3, DOTSHALF3, SUMS3, WIDEN, HALF) \
	KEYS4(two, twoEight, twoTail, twoSums, Q2, QHALF2, DOTS2, DOTSHALF2, SUMS2, WIDEN, HALF) \
	KEYS4(one, oneEight, oneTail, oneSums, Q1, QHALF1, DOTS1, DOTSHALF1, SUMS1, WIDEN, HALF) \
rest: \ // one key at R9, with one query after the other: R17 query, R22 its score, R23 queries left
	CBZ   R10, next       \
	MOVD  R2, R17         \
	MOVD  R11, R22        \
	MOVD  R12, R23        \
query: \
	ZEROV(0)              \
	ZEROV(1)              \
	MOVD  R9, R13         \
	LSR   $3, R6, R21     \
	CBZ   R21, queryTail  \
queryEight: \
	Q1                    \
	WIDEN(R13)            \
	DOTS1(0)              \
	SUB   $1, R21         \
	CBNZ  R21, queryEight \
queryTail: \
	TBZ   $2, R6, querySum \
	QHALF1                \
	HALF(R13)             \
	DOTSHALF1(0)          \
querySum: \
	FADDV(0, 0, 1)        \
	ZIP2D(1, 0, 0)        \
	FADDV(0, 0, 1)        \
	FADDPV(0, 0, 0)       \
	FMOVS F0, (R22)       \
	ADD   R1, R22         \
	SUB   $1, R23         \
	CBNZ  R23, query      \
	ADD   R8, R9          \
	ADD   $4, R11         \
	SUB   $1, R10         \
	B     rest            \
next: \
	MADD  R7, R2, R12, R2 \
	MADD  R1, R0, R12, R0 \
	SUBS  R12, R3         \
	BNE   turn            \
	RET

// Sums of a band, 32, 16, 8 or 4 elements wide: those of query 0 in V0 … V7, of query 1 in V8 … V15, of query 2 in V16 … V23.
#define LOAD32(p, a, b, c, d, e, f, g, h) \
	FLDPQ 0(p), (a, b)  \
	FLDPQ 32(p), (c, d) \
	FLDPQ 64(p), (e, f) \
	FLDPQ 96(p), (g, h)

#define STORE32(p, a, b, c, d, e, f, g, h) \
	FSTPQ (a, b), 0(p)  \
	FSTPQ (c, d), 32(p) \
	FSTPQ (e, f), 64(p) \
	FSTPQ (g, h), 96(p)

#define GET32x1 LOAD32(R10, F0, F1, F2, F3, F4, F5, F6, F7)
#define GET32x2 \
	GET32x1 \
	LOAD32(R23, F8, F9, F10, F11, F12, F13, F14, F15)
#define GET32x3 \
	GET32x2 \
	LOAD32(R24, F16, F17, F18, F19, F20, F21, F22, F23)

#define PUT32x1 STORE32(R10, F0, F1, F2, F3, F4, F5, F6, F7)
#define PUT32x2 \
	PUT32x1 \
	STORE32(R23, F8, F9, F10, F11, F12, F13, F14, F15)
#define PUT32x3 \
	PUT32x2 \
	STORE32(R24, F16, F17, F18, F19, F20, F21, F22, F23)

#define GET16x1 \
	FLDPQ 0(R10), (F0, F1)  \
	FLDPQ 32(R10), (F2, F3)
#define GET16x2 \
	GET16x1 \
	FLDPQ 0(R23), (F8, F9)   \
	FLDPQ 32(R23), (F10, F11)
#define GET16x3 \
	GET16x2 \
	FLDPQ 0(R24), (F16, F17)  \
	FLDPQ 32(R24), (F18, F19)

#define PUT16x1 \
	FSTPQ (F0, F1), 0(R10)  \
	FSTPQ (F2, F3), 32(R10)
#define PUT16x2 \
	PUT16x1 \
	FSTPQ (F8, F9), 0(R23)    \
	FSTPQ (F10, F11), 32(R23)
#define PUT16x3 \
	PUT16x2 \
	FSTPQ (F16, F17), 0(R24)  \
	FSTPQ (F18, F19), 32(R24)

#define GET8x1 \
	FLDPQ 0(R10), (F0, F1)
#define GET8x2 \
	GET8x1 \
	FLDPQ 0(R23), (F8, F9)
#define GET8x3 \
	GET8x2 \
	FLDPQ 0(R24), (F16, F17)

#define PUT8x1 \
	FSTPQ (F0, F1), 0(R10)
#define PUT8x2 \
	PUT8x1 \
	FSTPQ (F8, F9), 0(R23)
#define PUT8x3 \
	PUT8x2 \
	FSTPQ (F16, F17), 0(R24)

#define GET4x1 \
	FMOVQ 0(R10), F0
#define GET4x2 \
	GET4x1 \
	FMOVQ 0(R23), F8
#define GET4x3 \
	GET4x2 \
	FMOVQ 0(R24), F16

#define PUT4x1 \
	FMOVQ F0, 0(R10)
#define PUT4x2 \
	PUT4x1 \
	FMOVQ F8, 0(R23)
#define PUT4x3 \
	PUT4x2 \
	FMOVQ F16, 0(R24)

// The queries' weights of a key: V24, V25, V26, in lane 0.
#define Px1 \
	FMOVS.P 4(R17), F24
#define Px2 \
	Px1 \
	FMOVS.P 4(R19), F25
#define Px3 \
	Px2 \
	FMOVS.P 4(R20), F26

// Sums i and i+1 of each query gain weight times V30, V31.
#define MIXx1(i) \
	FMLAE(i, 30, 24, 0)    \
	FMLAE(i+1, 31, 24, 0)
#define MIXx2(i) \
	MIXx1(i) \
	FMLAE(8+i, 30, 25, 0)  \
	FMLAE(9+i, 31, 25, 0)
#define MIXx3(i) \
	MIXx2(i) \
	FMLAE(16+i, 30, 26, 0) \
	FMLAE(17+i, 31, 26, 0)

#define MIXHALFx1 \
	FMLAE(0, 30, 24, 0)
#define MIXHALFx2 \
	MIXHALFx1 \
	FMLAE(8, 30, 25, 0)
#define MIXHALFx3 \
	MIXHALFx2 \
	FMLAE(16, 30, 26, 0)

// A band stays in registers while all keys pass: R13 v, R17, R19, R20 weights, R21 keys left. R9 elements are left.
#define BEGIN \
	MOVD R11, R13     \
	MOVD R2, R17      \
	ADD  R1, R17, R19 \
	ADD  R1, R19, R20 \
	MOVD R5, R21      \
	ADD  R7, R10, R23 \
	ADD  R7, R23, R24

#define NEXT(again) \
	ADD  R8, R13    \
	SUB  $1, R21    \
	CBNZ R21, again

#define LEAVE(n, SHIFT) \
	ADD $(4*n), R10          \
	ADD $(n<<SHIFT), R11     \
	SUB $n, R9

#define BANDS(b32, k32, b16, k16, b8, k8, b4, k4, P, GET32, PUT32, GET16, PUT16, GET8, PUT8, GET4, PUT4, MUL, MULHALF, WIDEN, HALF, SHIFT) \
b32: \
	CMP  $32, R9    \
	BLT  b16        \
	BEGIN           \
	GET32           \
k32: \
	P               \
	MOVD R13, R14   \
	WIDEN(R14)      \
	MUL(0)          \
	WIDEN(R14)      \
	MUL(2)          \
	WIDEN(R14)      \
	MUL(4)          \
	WIDEN(R14)      \
	MUL(6)          \
	NEXT(k32)       \
	PUT32           \
	LEAVE(32, SHIFT) \
	B    b32        \
b16: \
	CMP  $16, R9    \
	BLT  b8         \
	BEGIN           \
	GET16           \
k16: \
	P               \
	MOVD R13, R14   \
	WIDEN(R14)      \
	MUL(0)          \
	WIDEN(R14)      \
	MUL(2)          \
	NEXT(k16)       \
	PUT16           \
	LEAVE(16, SHIFT) \
b8: \
	CMP  $8, R9     \
	BLT  b4         \
	BEGIN           \
	GET8            \
k8: \
	P               \
	MOVD R13, R14   \
	WIDEN(R14)      \
	MUL(0)          \
	NEXT(k8)        \
	PUT8            \
	LEAVE(8, SHIFT) \
b4: \
	CBZ  R9, next   \
	BEGIN           \
	GET4            \
k4: \
	P               \
	MOVD R13, R14   \
	HALF(R14)       \
	MULHALF         \
	NEXT(k4)        \
	PUT4            \
	B    next

// R0 dst, R7 its row in bytes, R3 queries left, R12 those of this turn   R2 p, R1 its stride in bytes
// R4 v, R8 its row in bytes, R5 keys, R6 dim   R10, R11 dst and v at the band
#define MIX(WIDEN, HALF, SHIFT) \
	LSL   $2, R1          \
	LSL   $2, R6, R7      \
	LSL   $SHIFT, R6, R8  \
turn: \
	MOVD  R6, R9          \
	MOVD  R0, R10         \
	MOVD  R4, R11         \
	MOVD  $2, R12         \
	CMP   $4, R3          \
	BEQ   two             \
	CMP   $2, R3          \
	BEQ   two             \
	MOVD  $1, R12         \
	BLT   one             \
	MOVD  $3, R12         \
	BANDS(three, three32, threeB16, three16, threeB8, three8, threeB4, three4, Px3, GET32x3, PUT32x3, GET16x3, PUT16x3, GET8x3, PUT8x3, GET4x3, PUT4x3, MIXx3, MIXHALFx3, WIDEN, HALF, SHIFT) \
	BANDS(two, two32, twoB16, two16, twoB8, two8, twoB4, two4, Px2, GET32x2, PUT32x2, GET16x2, PUT16x2, GET8x2, PUT8x2, GET4x2, PUT4x2, MIXx2, MIXHALFx2, WIDEN, HALF, SHIFT) \
	BANDS(one, one32, oneB16, one16, oneB8, one8, oneB4, one4, Px1, GET32x1, PUT32x1, GET16x1, PUT16x1, GET8x1, PUT8x1, GET4x1, PUT4x1, MIXx1, MIXHALFx1, WIDEN, HALF, SHIFT) \
next: \
	MADD  R7, R0, R12, R0 \
	MADD  R1, R2, R12, R2 \
	SUBS  R12, R3         \
	BNE   turn            \
	RET

// func scoreF32NEON(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)
// Reference: scoreF32Generic, up to rounding.
TEXT ·scoreF32NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD q+16(FP), R2
	MOVD queries+24(FP), R3
	MOVD k+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	SCORE(WIDENF32, HALFF32, 2)

// func mixF32NEON(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD queries+8(FP), R3
	MOVD p+16(FP), R2
	MOVD stride+24(FP), R1
	MOVD v+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	MIX(WIDENF32, HALFF32, 2)

// func scoreF16NEON(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)
// Reference: scoreF16Generic, up to rounding.
TEXT ·scoreF16NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD q+16(FP), R2
	MOVD queries+24(FP), R3
	MOVD k+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	SCORE(WIDENF16, HALFF16, 1)

// func mixF16NEON(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD queries+8(FP), R3
	MOVD p+16(FP), R2
	MOVD stride+24(FP), R1
	MOVD v+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	MIX(WIDENF16, HALFF16, 1)

// func scoreInt8NEON(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)
// Reference: scoreInt8Generic, up to rounding.
TEXT ·scoreInt8NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD stride+8(FP), R1
	MOVD q+16(FP), R2
	MOVD queries+24(FP), R3
	MOVD k+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	SCORE(WIDENINT8, HALFINT8, 0)

// func mixInt8NEON(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8NEON(SB), NOSPLIT, $0-56
	MOVD dst+0(FP), R0
	MOVD queries+8(FP), R3
	MOVD p+16(FP), R2
	MOVD stride+24(FP), R1
	MOVD v+32(FP), R4
	MOVD keys+40(FP), R5
	MOVD dim+48(FP), R6
	MIX(WIDENINT8, HALFINT8, 0)
