// What the AVX-512 kernels of matrices share. All use one frame:
//
//	DI dst, R8 its stride in bytes   SI x, R9 its stride in bytes   CX rows left
//	DX w, BX its length in steps     AX add
//	R10 w, R12 x (R13: its rows 3 …), R15 dst's rows 3 …, R11 steps left, while a tile walks the panel
//	R14, AX x's rows 6 … and 9 …, R15 where to prefetch and BX how much further in a step, in a tile of twelve
//
// A tile is 1 … 6 or 12 rows × 32 outputs; an accumulator holds 16 outputs of a row:
//
//	          w[k, 0…15]  w[k, 16…31]
//	x[0, k]      Z0          Z1
//	x[1, k]      Z2          Z3
//	 ⋮
//	x[11, k]     Z22         Z23
//
// Twelve rows are for the kernels of floats, which keep w and x in Z24 …; the kernels of integers have float sums in
// Z12 … Z23 instead, in the same order, and those of pairs w and x in Z12 ….
//
// The slices are as long as the wrapper promises; nothing is checked here.

// Choose a tile: six rows at a time, and five and four for rests of more than six. Narrow tiles wait for their own sums.
#define TILE(six, five, four, three, two, one) \
	MOVQ DX, R10          \
	MOVQ SI, R12          \
	LEAQ (SI)(R9*2), R13  \
	ADDQ R9, R13          \
	LEAQ (DI)(R8*2), R15  \
	ADDQ R8, R15          \
	MOVQ BX, R11          \
	CMPQ CX, $10          \
	JGE  six              \
	CMPQ CX, $9           \
	JEQ  five             \
	CMPQ CX, $7           \
	JGE  four             \
	CMPQ CX, $6           \
	JEQ  six              \
	CMPQ CX, $5           \
	JEQ  five             \
	CMPQ CX, $4           \
	JEQ  four             \
	CMPQ CX, $3           \
	JEQ  three            \
	CMPQ CX, $2           \
	JEQ  two              \
	CMPQ CX, $1           \
	JEQ  one              \
	VZEROUPPER            \
	RET

// What the tiles of twelve prefetch between them, evenly, is as much as the panel's BX steps of 128 bytes, from its end on: the
// next block, for blocks follow one another. R15 is where, step how much further with each step, which fetches 128 bytes.
#define AHEAD(step) \
	MOVQ BX, R15       \
	SHLQ $7, R15       \
	ADDQ DX, R15       \
	MOVL $(12*128), AX \
	XORL DX, DX        \
	DIVL CX            \
	MOVQ AX, step

// The same with twelve rows at a time first.
#define TILE12(twelve, six, five, four, three, two, one) \
	MOVQ DX, R10                     \
	MOVQ SI, R12                     \
	CMPQ CX, $12                     \
	JGE  twelve                      \
	TILE(six, five, four, three, two, one)

// The addresses of rows 3 … of x; 6 …; 9 ….
#define ROWS12UP \
	LEAQ (SI)(R9*2), R13  \
	ADDQ R9, R13          \
	LEAQ (SI)(R9*4), R14  \
	LEAQ (R14)(R9*2), R14 \
	LEAQ (SI)(R9*8), AX   \
	ADDQ R9, AX

// Go on to the rows after a tile of twelve.
#define AFTER12(tile, steps) \
	MOVQ    BX, DI            \
	MOVQ    steps, BX         \
	LEAQ    (SI)(R9*8), SI    \
	LEAQ    (SI)(R9*4), SI    \
	MOVBLZX add+56(FP), AX    \
	SUBQ    $12, CX           \
	JMP     tile

// Go on to the rows after a tile of n.
#define AFTER(tile, n) \
	IMUL3Q $n, R8, R13 \
	ADDQ   R13, DI     \
	IMUL3Q $n, R9, R13 \
	ADDQ   R13, SI     \
	SUBQ   $n, CX      \
	JMP    tile

// Prefetch weights, 128 bytes a step, for the processor's own prefetching ends with a page: NEAR for a row by itself, BLOCK, which
// is where the next block begins, for tiles that share one.
#define NEAR 8192
#define BLOCK 16384

#define FETCH64(far, w) PREFETCHT0 far w

#define FETCH(far, w) \
	PREFETCHT0 far w      \
	PREFETCHT0 (far+64) w

// DO(row of x, its accumulators) for each row of a tile.
#define X1(DO) \
	DO((R12), Z0, Z1)

#define X2(DO) \
	DO((R12), Z0, Z1)       \
	DO((R12)(R9*1), Z2, Z3)

#define X3(DO) \
	DO((R12), Z0, Z1)       \
	DO((R12)(R9*1), Z2, Z3) \
	DO((R12)(R9*2), Z4, Z5)

#define X4(DO) \
	X3(DO)            \
	DO((R13), Z6, Z7)

#define X5(DO) \
	X4(DO)                  \
	DO((R13)(R9*1), Z8, Z9)

#define X6(DO) \
	X5(DO)                    \
	DO((R13)(R9*2), Z10, Z11)

#define X12(DO) \
	X6(DO)                     \
	DO((R14), Z12, Z13)        \
	DO((R14)(R9*1), Z14, Z15)  \
	DO((R14)(R9*2), Z16, Z17)  \
	DO((AX), Z18, Z19)         \
	DO((AX)(R9*1), Z20, Z21)   \
	DO((AX)(R9*2), Z22, Z23)

// DO(row of dst, its accumulators) for each row of a tile.
#define DST1(DO) \
	DO((DI), Z0, Z1)

#define DST2(DO) \
	DO((DI), Z0, Z1)       \
	DO((DI)(R8*1), Z2, Z3)

#define DST3(DO) \
	DO((DI), Z0, Z1)       \
	DO((DI)(R8*1), Z2, Z3) \
	DO((DI)(R8*2), Z4, Z5)

#define DST4(DO) \
	DST3(DO)          \
	DO((R15), Z6, Z7)

#define DST5(DO) \
	DST4(DO)                \
	DO((R15)(R8*1), Z8, Z9)

#define DST6(DO) \
	DST5(DO)                  \
	DO((R15)(R8*2), Z10, Z11)

#define DST12(DO) \
	MOVQ DI, BX                \
	DO((BX), Z0, Z1)           \
	DO((BX)(R8*1), Z2, Z3)     \
	DO((BX)(R8*2), Z4, Z5)     \
	DO((BX)(R8*4), Z8, Z9)     \
	DO((BX)(R8*8), Z16, Z17)   \
	LEAQ (BX)(R8*2), BX       \
	ADDQ R8, BX                \
	DO((BX), Z6, Z7)           \
	DO((BX)(R8*2), Z10, Z11)   \
	DO((BX)(R8*4), Z14, Z15)   \
	DO((BX)(R8*8), Z22, Z23)   \
	LEAQ (BX)(R8*2), BX       \
	ADDQ R8, BX                \
	DO((BX), Z12, Z13)         \
	DO((BX)(R8*4), Z20, Z21)   \
	LEAQ (BX)(R8*2), BX       \
	ADDQ R8, BX                \
	DO((BX), Z18, Z19)         \
	LEAQ (BX)(R8*2), BX       \
	ADDQ R8, BX

#define ZERO(p, a, b) \
	VPXORD a, a, a \
	VPXORD b, b, b

#define LOAD(p, a, b) \
	VMOVUPS 0 p, a  \
	VMOVUPS 64 p, b

#define STORE(p, a, b) \
	VMOVUPS a, 0 p  \
	VMOVUPS b, 64 p

// A tile of n rows whose sums are floats: W loads a step of 128 bytes of w, ROWS multiplies it with the size bytes that a step takes of
// each row of x.
#define FLOATTILE(begin, k, n, W, ROWS, size, DST, far) \
begin: \
	DST(ZERO)         \
	TESTL AX, AX      \
	JEQ   k           \
	DST(LOAD)         \
k: \
	FETCH(far, (R10)) \
	W                 \
	ROWS              \
	ADDQ  $size, R12  \
	ADDQ  $size, R13  \
	ADDQ  $128, R10   \
	DECQ  R11         \
	JNE   k           \
	DST(STORE)        \
	AFTER(tile, n)
