// Instructions that Go's assembler does not know, operands by register number: d is the destination. Behind each stands its
// mnemonic, with the operands in braces; TestWords holds the words to it.

#define FMLAE(d, n, m, i)  WORD $(0x4f801000 | ((i)&1)<<21 | ((i)&2)<<10 | (m)<<16 | (n)<<5 | (d)) // fmla v{d}.4s, v{n}.4s, v{m}.s[{i}]
#define FMULE(d, n, m, i)  WORD $(0x4f809000 | ((i)&1)<<21 | ((i)&2)<<10 | (m)<<16 | (n)<<5 | (d)) // fmul v{d}.4s, v{n}.4s, v{m}.s[{i}]
#define FMULV(d, n, m)     WORD $(0x6e20dc00 | (m)<<16 | (n)<<5 | (d)) // fmul v{d}.4s, v{n}.4s, v{m}.4s
#define FADDV(d, n, m)     WORD $(0x4e20d400 | (m)<<16 | (n)<<5 | (d)) // fadd v{d}.4s, v{n}.4s, v{m}.4s
#define FCMEQV(d, n, m)    WORD $(0x4e20e400 | (m)<<16 | (n)<<5 | (d)) // fcmeq v{d}.4s, v{n}.4s, v{m}.4s
#define SCVTFV(d, n)       WORD $(0x4e21d800 | (n)<<5 | (d))           // scvtf v{d}.4s, v{n}.4s
#define FCVTNSV(d, n)      WORD $(0x4e21a800 | (n)<<5 | (d))           // fcvtns v{d}.4s, v{n}.4s
#define UMAXVS(d, n)       WORD $(0x6eb0a800 | (n)<<5 | (d))           // umaxv s{d}, v{n}.4s

// Products of bytes, as words.
#define SMULL(d, n, m)     WORD $(0x0e20c000 | (m)<<16 | (n)<<5 | (d)) // smull v{d}.8h, v{n}.8b, v{m}.8b
#define SMULL2(d, n, m)    WORD $(0x4e20c000 | (m)<<16 | (n)<<5 | (d)) // smull2 v{d}.8h, v{n}.16b, v{m}.16b
#define SMLAL(d, n, m)     WORD $(0x0e208000 | (m)<<16 | (n)<<5 | (d)) // smlal v{d}.8h, v{n}.8b, v{m}.8b
#define SMLAL2(d, n, m)    WORD $(0x4e208000 | (m)<<16 | (n)<<5 | (d)) // smlal2 v{d}.8h, v{n}.16b, v{m}.16b
#define SADDLP(d, n)       WORD $(0x4e602800 | (n)<<5 | (d))           // saddlp v{d}.4s, v{n}.8h
#define SADALP(d, n)       WORD $(0x4e606800 | (n)<<5 | (d))           // sadalp v{d}.4s, v{n}.8h

// DotProd
#define SDOTE(d, n, m, i)  WORD $(0x4f80e000 | ((i)&1)<<21 | ((i)&2)<<10 | (m)<<16 | (n)<<5 | (d)) // sdot v{d}.4s, v{n}.16b, v{m}.4b[{i}]

// I8MM: n is unsigned, m signed
#define USMMLA(d, n, m)    WORD $(0x4e80ac00 | (m)<<16 | (n)<<5 | (d)) // usmmla v{d}.4s, v{n}.16b, v{m}.16b

// BF16
#define BFDOTE(d, n, m, i) WORD $(0x4f40f000 | ((i)&1)<<21 | ((i)&2)<<10 | (m)<<16 | (n)<<5 | (d)) // bfdot v{d}.4s, v{n}.8h, v{m}.2h[{i}]
#define BFMMLA(d, n, m)    WORD $(0x6e40ec00 | (m)<<16 | (n)<<5 | (d)) // bfmmla v{d}.4s, v{n}.8h, v{m}.8h

// Attention and vectors
#define FSUBV(d, n, m)     WORD $(0x4ea0d400 | (m)<<16 | (n)<<5 | (d)) // fsub v{d}.4s, v{n}.4s, v{m}.4s
#define FDIVV(d, n, m)     WORD $(0x6e20fc00 | (m)<<16 | (n)<<5 | (d)) // fdiv v{d}.4s, v{n}.4s, v{m}.4s
#define FMAXV(d, n, m)     WORD $(0x4e20f400 | (m)<<16 | (n)<<5 | (d)) // fmax v{d}.4s, v{n}.4s, v{m}.4s
#define FMAXVS(d, n)       WORD $(0x6e30f800 | (n)<<5 | (d))           // fmaxv s{d}, v{n}.4s
#define FCMGTV(d, n, m)    WORD $(0x6ea0e400 | (m)<<16 | (n)<<5 | (d)) // fcmgt v{d}.4s, v{n}.4s, v{m}.4s
#define CMLT0(d, n)        WORD $(0x4ea0a800 | (n)<<5 | (d))           // cmlt v{d}.4s, v{n}.4s, #0
#define ADDV(d, n, m)      WORD $(0x4ea08400 | (m)<<16 | (n)<<5 | (d)) // add v{d}.4s, v{n}.4s, v{m}.4s
#define SHL23(d, n)        WORD $(0x4f375400 | (n)<<5 | (d))           // shl v{d}.4s, v{n}.4s, #23
#define ORRV(d, n, m)      WORD $(0x4ea01c00 | (m)<<16 | (n)<<5 | (d)) // orr v{d}.16b, v{n}.16b, v{m}.16b
#define BICV(d, n, m)      WORD $(0x4e601c00 | (m)<<16 | (n)<<5 | (d)) // bic v{d}.16b, v{n}.16b, v{m}.16b
#define BSLV(d, n, m)      WORD $(0x6e601c00 | (m)<<16 | (n)<<5 | (d)) // bsl v{d}.16b, v{n}.16b, v{m}.16b
#define DUPE(d, n, i)      WORD $(0x4e040400 | (i)<<19 | (n)<<5 | (d)) // dup v{d}.4s, v{n}.s[{i}]
#define FCVTL(d, n)        WORD $(0x0e217800 | (n)<<5 | (d))           // fcvtl v{d}.4s, v{n}.4h
#define FCVTL2(d, n)       WORD $(0x4e217800 | (n)<<5 | (d))           // fcvtl2 v{d}.4s, v{n}.8h
#define FCVTN(d, n)        WORD $(0x0e216800 | (n)<<5 | (d))           // fcvtn v{d}.4h, v{n}.4s
#define FCVTN2(d, n)       WORD $(0x4e216800 | (n)<<5 | (d))           // fcvtn2 v{d}.8h, v{n}.4s
#define SXTLB(d, n)        WORD $(0x0f08a400 | (n)<<5 | (d))           // sshll v{d}.8h, v{n}.8b, #0
#define SXTLH(d, n)        WORD $(0x0f10a400 | (n)<<5 | (d))           // sshll v{d}.4s, v{n}.4h, #0
#define SXTLH2(d, n)       WORD $(0x4f10a400 | (n)<<5 | (d))           // sshll2 v{d}.4s, v{n}.8h, #0
#define ZEROV(d)           WORD $(0x4f000400 | (d))                    // movi v{d}.4s, #0x0
