// Rows of dst in a tile of 1 … 3 rows × 32 outputs: row 0 in V0 … V7, row 1 in V8 … V15, row 2 in V16 … V23.

#define LOAD8(p, a, b, c, d, e, f, g, h) \
	FLDPQ 0(p), (a, b)  \
	FLDPQ 32(p), (c, d) \
	FLDPQ 64(p), (e, f) \
	FLDPQ 96(p), (g, h)

#define STORE8(p, a, b, c, d, e, f, g, h) \
	FSTPQ (a, b), 0(p)  \
	FSTPQ (c, d), 32(p) \
	FSTPQ (e, f), 64(p) \
	FSTPQ (g, h), 96(p)

#define LOADROW0(p) LOAD8(p, F0, F1, F2, F3, F4, F5, F6, F7)
#define LOADROW1(p) LOAD8(p, F8, F9, F10, F11, F12, F13, F14, F15)
#define LOADROW2(p) LOAD8(p, F16, F17, F18, F19, F20, F21, F22, F23)
#define STOREROW0(p) STORE8(p, F0, F1, F2, F3, F4, F5, F6, F7)
#define STOREROW1(p) STORE8(p, F8, F9, F10, F11, F12, F13, F14, F15)
#define STOREROW2(p) STORE8(p, F16, F17, F18, F19, F20, F21, F22, F23)

// The pointers to the rows, from R0 dst, R1 its stride, R3 x and R4 its stride, in elements of four bytes.
#define ROWS \
	ADD R1<<3, R0, R2 \
	ADD R1<<2, R0, R1 \
	ADD R4<<3, R3, R5 \
	ADD R4<<2, R3, R4
