//go:build !purego

#include "go_asm.h"
#include "textflag.h"
#include "words_arm64.h"

// The sums of attention on NEON (mixShape says which), with the bits of the kernels on AVX2. Written once for the three forms of keys
// and values: WIDEN loads eight elements at p as float32 into V30 and V31 and moves p on, HALF four into V30. Queries go three by
// three, a rest of four two by two. lanes is a multiple of four; no count is zero.

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

// What the queries multiply a row with: V24, V25, V26, in lane 0.
#define Px1 \
	FMOVS.P 4(R17), F24
#define Px2 \
	Px1 \
	FMOVS.P 4(R19), F25
#define Px3 \
	Px2 \
	FMOVS.P 4(R20), F26

// Sums i and i+1 of each query gain that times V30, V31.
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

// A band stays in registers while all rows pass: R13 w, R17, R19, R20 p, R21 rows left. R9 lanes are left. Sums that begin at zero
// go straight to loop.
#define BEGIN(loop) \
	MOVD R11, R13               \
	MOVD R2, R17                \
	ADD  R1, R17, R19           \
	ADD  R1, R19, R20           \
	MOVD mixShape_steps(R5), R21 \
	ADD  R7, R10, R23           \
	ADD  R7, R23, R24           \
	ZERO8(0)                    \
	ZERO8(8)                    \
	ZERO8(16)                   \
	MOVBU mixShape_begin(R5), R14 \
	CBNZ R14, loop

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
	BEGIN(k32)      \
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
	SUB  R9, R15, R14        \
	TST  $63, R14            \
	ADD  R6, R11, R14        \
	CSEL EQ, R14, R11, R11   \
	B    b32        \
b16: \
	CMP  $16, R9    \
	BLT  b8         \
	BEGIN(k16)      \
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
	BEGIN(k8)      \
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
	BEGIN(k4)      \
	GET4            \
k4: \
	P               \
	MOVD R13, R14   \
	HALF(R14)       \
	MULHALF         \
	NEXT(k4)        \
	PUT4            \
	B    next

// R0 dst, R7 its stride in bytes, R3 queries left, R12 those of this turn   R2 p, R1 its stride in bytes
// R4 w, R8 from a row of it to the next, R6 from the end of a panel to the beginning of the next   R5 the shape, R15 its lanes
// R10, R11 dst and w at the band
#define MIX(WIDEN, HALF, SHIFT) \
	MOVD  dst+0(FP), R0        \
	MOVD  p+8(FP), R2          \
	MOVD  w+16(FP), R4         \
	MOVD  m+24(FP), R5         \
	MOVD  mixShape_stride(R5), R7 \
	LSL   $2, R7               \
	MOVD  mixShape_pStride(R5), R1 \
	LSL   $2, R1               \
	MOVD  mixShape_step(R5), R8 \
	LSL   $SHIFT, R8           \
	MOVD  mixShape_panel(R5), R6 \
	SUB   $64, R6              \
	LSL   $SHIFT, R6           \
	MOVD  mixShape_queries(R5), R3 \
	MOVD  mixShape_lanes(R5), R15 \
turn: \
	MOVD  R15, R9         \
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

// func mixF32Vector(dst, p, w *float32, m *mixShape)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32Vector(SB), NOSPLIT, $0-32
	MIX(WIDENF32, HALFF32, 2)

// func mixF16Vector(dst, p *float32, w *uint16, m *mixShape)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16Vector(SB), NOSPLIT, $0-32
	MIX(WIDENF16, HALFF16, 1)

// func mixInt8Vector(dst, p *float32, w *int8, m *mixShape)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8Vector(SB), NOSPLIT, $0-32
	MIX(WIDENINT8, HALFINT8, 0)
