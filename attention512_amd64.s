//go:build !purego

#include "textflag.h"

// Attention of many queries on AVX-512, with the bits of the kernels on AVX2 (attention_amd64.s): six queries or four a turn, so
// that a key or value, once widened, serves them all. Four where four or eight are left. queries is even and at least four, keys not zero.

// Keys and values are fetched AHEAD into the second-level cache, by the 64 elements that a step takes.
#define AHEAD 8192

#define FETCHF32(r) \
	PREFETCHT1 AHEAD(r)        \
	PREFETCHT1 (AHEAD+64)(r)   \
	PREFETCHT1 (AHEAD+128)(r)  \
	PREFETCHT1 (AHEAD+192)(r)

#define FETCHF16(r) \
	PREFETCHT1 AHEAD(r)      \
	PREFETCHT1 (AHEAD+64)(r)

#define FETCHINT8(r) \
	PREFETCHT1 AHEAD(r)

// Eight elements of a key and eight of another, side by side in Z15.
#define PAIRF32(m, n) \
	VMOVUPS      m, Y15           \
	VINSERTF64X4 $1, n, Z15, Z15

#define PAIRF16(m, n) \
	VMOVDQU     m, X15           \
	VINSERTI128 $1, n, Y15, Y15  \
	VCVTPH2PS   Y15, Z15

#define PAIRINT8(m, n) \
	VMOVQ     m, X15           \
	VPINSRQ   $1, n, X15, X15  \
	VPMOVSXBD X15, Z15         \
	VCVTDQ2PS Z15, Z15

// Eight elements of the queries, twice.
#define Q4 \
	VBROADCASTF64X4 (AX), Z12        \
	VBROADCASTF64X4 (AX)(R9*1), Z13  \
	VBROADCASTF64X4 (AX)(R9*2), Z14  \
	VBROADCASTF64X4 (DX), Z28

#define Q6 \
	Q4                               \
	VBROADCASTF64X4 (AX)(R9*4), Z29  \
	VBROADCASTF64X4 (DX)(R9*2), Z30

#define DOT4(a, b, c, d, e, f) \
	VFMADD231PS Z15, Z12, a \
	VFMADD231PS Z15, Z13, b \
	VFMADD231PS Z15, Z14, c \
	VFMADD231PS Z15, Z28, d

#define DOT6(a, b, c, d, e, f) \
	DOT4(a, b, c, d, e, f)  \
	VFMADD231PS Z15, Z29, e \
	VFMADD231PS Z15, Z30, f

// Eight scores of a query to m. a holds the lanes of keys 0 and 4, b of 1 and 5, c of 2 and 6, d of 3 and 7; each sum is
// ((s0+s4)+(s2+s6)) + ((s1+s5)+(s3+s7)).
#define SUM8(a, b, c, d, m) \
	VSHUFF64X2 $0x88, b, a, Z12       \
	VSHUFF64X2 $0xdd, b, a, Z13       \
	VADDPS     Z13, Z12, Z12          \ // s0+s4 … s3+s7 of keys 0, 4, 1, 5
	VSHUFF64X2 $0x88, d, c, Z13       \
	VSHUFF64X2 $0xdd, d, c, Z14       \
	VADDPS     Z14, Z13, Z13          \ // and of 2, 6, 3, 7
	VSHUFPS    $0x44, Z13, Z12, Z14   \
	VSHUFPS    $0xee, Z13, Z12, Z15   \
	VADDPS     Z15, Z14, Z14          \
	VPERMILPS  $0xb1, Z14, Z15        \
	VADDPS     Z15, Z14, Z14          \ // 0 0 2 2, 4 4 6 6, 1 1 3 3, 5 5 7 7
	VPERMPS    Z14, Z31, Z14          \
	VMOVUPS    Y14, m

#define SUMS4 \
	LEAQ (R8)(R8*2), AX                     \
	ADDQ R13, AX                            \
	SUM8(Z0, Z6, Z16, Z22, (R13))           \
	SUM8(Z1, Z7, Z17, Z23, (R13)(R8*1))     \
	SUM8(Z2, Z8, Z18, Z24, (R13)(R8*2))     \
	SUM8(Z3, Z9, Z19, Z25, (AX))

#define SUMS6 \
	SUMS4                                   \
	SUM8(Z4, Z10, Z20, Z26, (R13)(R8*4))    \
	SUM8(Z5, Z11, Z21, Z27, (AX)(R8*2))

// Eight keys with the queries of a turn. Accumulators are Z(6·pair + query), the third and fourth pair from Z16 on.
#define KEYS8(turn, eight, eightDims, Q, DOT, SUMS, PAIR, FETCH, SIZE) \
turn: \
	MOVQ   R11, CX       \
eight: \
	VPXORD Z0, Z0, Z0    \
	VMOVAPS Z0, Z1       \
	VMOVAPS Z0, Z2       \
	VMOVAPS Z0, Z3       \
	VMOVAPS Z0, Z4       \
	VMOVAPS Z0, Z5       \
	VMOVAPS Z0, Z6       \
	VMOVAPS Z0, Z7       \
	VMOVAPS Z0, Z8       \
	VMOVAPS Z0, Z9       \
	VMOVAPS Z0, Z10      \
	VMOVAPS Z0, Z11      \
	VMOVAPS Z0, Z16      \
	VMOVAPS Z0, Z17      \
	VMOVAPS Z0, Z18      \
	VMOVAPS Z0, Z19      \
	VMOVAPS Z0, Z20      \
	VMOVAPS Z0, Z21      \
	VMOVAPS Z0, Z22      \
	VMOVAPS Z0, Z23      \
	VMOVAPS Z0, Z24      \
	VMOVAPS Z0, Z25      \
	VMOVAPS Z0, Z26      \
	VMOVAPS Z0, Z27      \
	MOVQ   SI, AX               \
	LEAQ   (R9)(R9*2), DX       \
	ADDQ   SI, DX               \
	LEAQ   (R11)(R14*1), R15    \
	MOVQ   dim+48(FP), BX       \
	PCALIGN $32 \
eightDims: \
	FETCH(CX)                   \
	ADDQ   $(64*SIZE), CX       \
	Q                           \
	PAIR((R11), (R11)(R10*4))   \
	DOT(Z0, Z1, Z2, Z3, Z4, Z5) \
	PAIR((R11)(R10*1), (R15)(R10*2)) \
	DOT(Z6, Z7, Z8, Z9, Z10, Z11) \
	PAIR((R11)(R10*2), (R15)(R14*1)) \
	DOT(Z16, Z17, Z18, Z19, Z20, Z21) \
	PAIR((R15), (R15)(R10*4))   \
	DOT(Z22, Z23, Z24, Z25, Z26, Z27) \
	ADDQ   $32, AX              \
	ADDQ   $32, DX              \
	ADDQ   $(8*SIZE), R11       \
	ADDQ   $(8*SIZE), R15       \
	SUBQ   $8, BX               \
	JNE    eightDims            \
	SUMS                        \
	LEAQ   (R15)(R10*4), R11    \
	ADDQ   $32, R13             \
	SUBQ   $8, R12              \
	JNE    eight                \
	JMP    next

// DI dst, R8 its stride in bytes     SI q, R9 its row in bytes, CX queries left; AX, DX the first and the fourth of the turn
// R11 key 0, R10 its row in bytes, R14 three of them, R15 key 3     R12 keys left, R13 their scores     BX elements left
// CX walks along the keys of a turn, for the fetches
#define SCORE(PAIR, FETCH, SIZE) \
	MOVQ    dst+0(FP), DI       \
	MOVQ    stride+8(FP), R8    \
	SHLQ    $2, R8              \
	MOVQ    q+16(FP), SI        \
	MOVQ    queries+24(FP), CX  \
	MOVQ    dim+48(FP), R9      \
	IMUL3Q  $SIZE, R9, R10      \
	SHLQ    $2, R9              \
	LEAQ    (R10)(R10*2), R14   \
	VMOVDQU32 order512<>(SB), Z31 \
turn: \
	MOVQ    k+32(FP), R11       \
	MOVQ    keys+40(FP), R12    \
	MOVQ    DI, R13             \
	MOVQ    CX, left-16(SP)     \
	MOVQ    $4, turn-8(SP)      \
	CMPQ    CX, $4              \
	JEQ     four                \
	CMPQ    CX, $8              \
	JEQ     four                \
	MOVQ    $6, turn-8(SP)      \
	KEYS8(six, sixKeys, sixDims, Q6, DOT6, SUMS6, PAIR, FETCH, SIZE) \
	KEYS8(four, fourKeys, fourDims, Q4, DOT4, SUMS4, PAIR, FETCH, SIZE) \
next: \
	MOVQ    left-16(SP), CX     \
	MOVQ    turn-8(SP), AX      \
	SUBQ    AX, CX              \
	JEQ     done                \
	MOVQ    AX, R11             \
	IMULQ   R9, R11             \
	ADDQ    R11, SI             \
	IMULQ   R8, AX              \
	ADDQ    AX, DI              \
	JMP     turn                \
done: \
	VZEROUPPER                  \
	RET

// Where SUM8 has the sums of keys 0 … 7.
DATA order512<>+0(SB)/4, $0
DATA order512<>+4(SB)/4, $8
DATA order512<>+8(SB)/4, $2
DATA order512<>+12(SB)/4, $10
DATA order512<>+16(SB)/4, $4
DATA order512<>+20(SB)/4, $12
DATA order512<>+24(SB)/4, $6
DATA order512<>+28(SB)/4, $14
GLOBL order512<>(SB), RODATA|NOPTR, $64

// Sixteen elements of a value; those beyond its end (K1) are zero.
#define WIDEF32(m) \
	VMOVUPS.Z m, K1, Z15

#define WIDEF16(m) \
	VCVTPH2PS.Z m, K1, Z15

#define WIDEINT8(m) \
	VPMOVSXBD.Z m, K1, Z15 \
	VCVTDQ2PS   Z15, Z15

#define GET4(off, a, b, c, d, e, f) \
	VMOVUPS.Z off(DI), K1, a        \
	VMOVUPS.Z off(DI)(R9*1), K1, b  \
	VMOVUPS.Z off(DI)(R9*2), K1, c  \
	VMOVUPS.Z off(R14), K1, d

#define GET6(off, a, b, c, d, e, f) \
	GET4(off, a, b, c, d, e, f)     \
	VMOVUPS.Z off(DI)(R9*4), K1, e  \
	VMOVUPS.Z off(R14)(R9*2), K1, f

#define PUT4(off, a, b, c, d, e, f) \
	VMOVUPS a, K1, off(DI)          \
	VMOVUPS b, K1, off(DI)(R9*1)    \
	VMOVUPS c, K1, off(DI)(R9*2)    \
	VMOVUPS d, K1, off(R14)

#define PUT6(off, a, b, c, d, e, f) \
	PUT4(off, a, b, c, d, e, f)     \
	VMOVUPS e, K1, off(DI)(R9*4)    \
	VMOVUPS f, K1, off(R14)(R9*2)

// The queries' weights of a key.
#define P4 \
	VBROADCASTSS (R12), Z12         \
	VBROADCASTSS (R12)(R8*1), Z13   \
	VBROADCASTSS (R12)(R8*2), Z14   \
	VBROADCASTSS (R15), Z28

#define P6 \
	P4                              \
	VBROADCASTSS (R12)(R8*4), Z29   \
	VBROADCASTSS (R15)(R8*2), Z30

#define BEGIN \
	MOVQ DX, R11            \
	MOVQ SI, R12            \
	LEAQ (R8)(R8*2), R15    \
	ADDQ SI, R15            \
	MOVQ BX, R13

#define NEXT(again) \
	ADDQ R10, R11 \
	ADDQ $4, R12  \
	ADDQ $4, R15  \
	DECQ R13      \
	JNE  again

#define LEAVE(n, SIZE) \
	ADDQ $(4*n), DI    \
	ADDQ $(4*n), R14   \
	ADDQ $(n*SIZE), DX \
	SUBQ $n, AX

// Bands of the sums, 64 or up to 16 elements wide, stay in registers while all keys pass; AX elements are left.
#define BANDS512(b64, k64, b16, last, k16, P, GET, DOT, PUT, WIDE, FETCH, SIZE) \
b64: \
	CMPQ AX, $64                         \
	JLT  b16                             \
	BEGIN                                \
	GET(0, Z0, Z1, Z2, Z3, Z4, Z5)       \
	GET(64, Z6, Z7, Z8, Z9, Z10, Z11)    \
	GET(128, Z16, Z17, Z18, Z19, Z20, Z21) \
	GET(192, Z22, Z23, Z24, Z25, Z26, Z27) \
	PCALIGN $32 \
k64: \
	FETCH(R11)                           \
	P                                    \
	WIDE((R11))                          \
	DOT(Z0, Z1, Z2, Z3, Z4, Z5)          \
	WIDE((16*SIZE)(R11))                 \
	DOT(Z6, Z7, Z8, Z9, Z10, Z11)        \
	WIDE((32*SIZE)(R11))                 \
	DOT(Z16, Z17, Z18, Z19, Z20, Z21)    \
	WIDE((48*SIZE)(R11))                 \
	DOT(Z22, Z23, Z24, Z25, Z26, Z27)    \
	NEXT(k64)                            \
	PUT(0, Z0, Z1, Z2, Z3, Z4, Z5)       \
	PUT(64, Z6, Z7, Z8, Z9, Z10, Z11)    \
	PUT(128, Z16, Z17, Z18, Z19, Z20, Z21) \
	PUT(192, Z22, Z23, Z24, Z25, Z26, Z27) \
	LEAVE(64, SIZE)                      \
	JMP  b64                             \
b16: \
	TESTQ AX, AX                         \
	JLE  next                            \
	CMPQ AX, $16                         \
	JGE  last                            \
	MOVQ CX, R11                         \
	MOVQ AX, CX                          \
	MOVL $1, R12                         \
	SHLL CX, R12                         \
	DECL R12                             \
	KMOVW R12, K1                        \
	MOVQ R11, CX                         \
last: \
	BEGIN                                \
	GET(0, Z0, Z1, Z2, Z3, Z4, Z5)       \
	PCALIGN $32 \
k16: \
	PREFETCHT1 AHEAD(R11)                \
	P                                    \
	WIDE((R11))                          \
	DOT(Z0, Z1, Z2, Z3, Z4, Z5)          \
	NEXT(k16)                            \
	PUT(0, Z0, Z1, Z2, Z3, Z4, Z5)       \
	LEAVE(16, SIZE)                      \
	JMP  b16

// DI dst, R14 its fourth row, R9 its row in bytes, CX queries left
// SI p, R8 its stride in bytes; R12, R15 weights of the first and fourth query     DX v, R10 its row in bytes, R11 a value
// BX keys, R13 those left
#define MIX(WIDE, FETCH, SIZE) \
	MOVQ  dst+0(FP), DI       \
	MOVQ  queries+8(FP), CX   \
	MOVQ  p+16(FP), SI        \
	MOVQ  stride+24(FP), R8   \
	SHLQ  $2, R8              \
	MOVQ  keys+40(FP), BX     \
	MOVQ  dim+48(FP), R9      \
	IMUL3Q $SIZE, R9, R10     \
	SHLQ  $2, R9              \
turn: \
	MOVQ  DI, base-16(SP)     \
	LEAQ  (R9)(R9*2), R14     \
	ADDQ  DI, R14             \
	MOVQ  v+32(FP), DX        \
	MOVQ  dim+48(FP), AX      \
	MOVL  $0xffff, R11        \
	KMOVW R11, K1             \
	MOVQ  $4, turn-8(SP)      \
	CMPQ  CX, $4              \
	JEQ   four                \
	CMPQ  CX, $8              \
	JEQ   four                \
	MOVQ  $6, turn-8(SP)      \
	BANDS512(six, six64, sixB16, sixLast, six16, P6, GET6, DOT6, PUT6, WIDE, FETCH, SIZE) \
	BANDS512(four, four64, fourB16, fourLast, four16, P4, GET4, DOT4, PUT4, WIDE, FETCH, SIZE) \
next: \
	MOVQ  turn-8(SP), AX      \
	SUBQ  AX, CX              \
	JEQ   done                \
	MOVQ  AX, R11             \
	IMULQ R8, R11             \
	ADDQ  R11, SI             \
	MOVQ  base-16(SP), DI     \
	IMULQ R9, AX              \
	ADDQ  AX, DI              \
	JMP   turn                \
done: \
	VZEROUPPER                \
	RET

// func scoreF32AVX512(dst *float32, stride int, q *float32, queries int, k *float32, keys, dim int)
// Reference: scoreF32Generic, up to rounding; keys and dim are multiples of eight.
TEXT ·scoreF32AVX512(SB), NOSPLIT, $16-56
	SCORE(PAIRF32, FETCHF32, 4)

// func scoreF16AVX512(dst *float32, stride int, q *float32, queries int, k *uint16, keys, dim int)
// Reference: scoreF16Generic, up to rounding; keys and dim are multiples of eight.
TEXT ·scoreF16AVX512(SB), NOSPLIT, $16-56
	SCORE(PAIRF16, FETCHF16, 2)

// func scoreInt8AVX512(dst *float32, stride int, q *float32, queries int, k *int8, keys, dim int)
// Reference: scoreInt8Generic, up to rounding; keys and dim are multiples of eight.
TEXT ·scoreInt8AVX512(SB), NOSPLIT, $16-56
	SCORE(PAIRINT8, FETCHINT8, 1)

// func mixF32AVX512(dst *float32, queries int, p *float32, stride int, v *float32, keys, dim int)
// Reference: mixF32Generic, up to rounding.
TEXT ·mixF32AVX512(SB), NOSPLIT, $16-56
	MIX(WIDEF32, FETCHF32, 4)

// func mixF16AVX512(dst *float32, queries int, p *float32, stride int, v *uint16, keys, dim int)
// Reference: mixF16Generic, up to rounding.
TEXT ·mixF16AVX512(SB), NOSPLIT, $16-56
	MIX(WIDEF16, FETCHF16, 2)

// func mixInt8AVX512(dst *float32, queries int, p *float32, stride int, v *int8, keys, dim int)
// Reference: mixInt8Generic, up to rounding.
TEXT ·mixInt8AVX512(SB), NOSPLIT, $16-56
	MIX(WIDEINT8, FETCHINT8, 1)
