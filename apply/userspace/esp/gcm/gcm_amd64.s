#include "textflag.h"

// Fields of aead.
#define ROUNDS 0
#define KEYS 8
#define POWERS 248
#define POWERS_END (POWERS+21*16)

// Fields of message.
#define COUNTER 0
#define ADDITIONAL 16
#define LENGTHS 32
#define TAG 48
#define SEALING 64

// All octets of a block the other way round. So the counter comes to lie in the
// lowest 32 bits.
DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// What four lanes add to the counter, and what each adds after that.
DATA lanes<>+0(SB)/8, $0
DATA lanes<>+8(SB)/8, $0
DATA lanes<>+16(SB)/8, $1
DATA lanes<>+24(SB)/8, $0
DATA lanes<>+32(SB)/8, $2
DATA lanes<>+40(SB)/8, $0
DATA lanes<>+48(SB)/8, $3
DATA lanes<>+56(SB)/8, $0
GLOBL lanes<>(SB), RODATA|NOPTR, $64

DATA fours<>+0(SB)/8, $4
DATA fours<>+8(SB)/8, $0
DATA fours<>+16(SB)/8, $4
DATA fours<>+24(SB)/8, $0
DATA fours<>+32(SB)/8, $4
DATA fours<>+40(SB)/8, $0
DATA fours<>+48(SB)/8, $4
DATA fours<>+56(SB)/8, $0
GLOBL fours<>(SB), RODATA|NOPTR, $64

// The upper half of the modulus, see element.go, for four lanes.
DATA modulus<>+0(SB)/8, $0xc200000000000000
DATA modulus<>+8(SB)/8, $0xc200000000000000
DATA modulus<>+16(SB)/8, $0xc200000000000000
DATA modulus<>+24(SB)/8, $0xc200000000000000
DATA modulus<>+32(SB)/8, $0xc200000000000000
DATA modulus<>+40(SB)/8, $0xc200000000000000
DATA modulus<>+48(SB)/8, $0xc200000000000000
DATA modulus<>+56(SB)/8, $0xc200000000000000
GLOBL modulus<>(SB), RODATA|NOPTR, $64

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	VMOVD AX, X0
	VPSHUFD $0, X0, X0
	VAESKEYGENASSIST $0, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+8(FP)
	RET

// COUNT makes four counter blocks, with the first round key, and moves on.
#define COUNT(Z) \
	VPSHUFB Z31, Z0, Z; \
	VPADDD  fours<>(SB), Z0, Z0; \
	VPXORQ  Z16, Z, Z

// NINE are the rounds that all keys have before the last one, LONG those that longer
// keys have after them; ROUND does one of them.
#define NINE(ROUND) \
	ROUND(Z17); \
	ROUND(Z18); \
	ROUND(Z19); \
	ROUND(Z20); \
	ROUND(Z21); \
	ROUND(Z22); \
	ROUND(Z23); \
	ROUND(Z24); \
	ROUND(Z25)

#define LONG(ROUND, LABEL) \
	CMPQ BX, $12; \
	JB LABEL; \
	ROUND(Z26); \
	ROUND(Z27); \
	JE LABEL; \
	ROUND(Z28); \
	ROUND(Z29)

// ROUND_FOUR is one for four blocks.
#define ROUND_FOUR(K) VAESENC K, Z2, Z2

// keyStream makes four blocks of key stream in Z2.
TEXT keyStream<>(SB), NOSPLIT, $0-0
	COUNT(Z2)
	NINE(ROUND_FOUR)
	LONG(ROUND_FOUR, last)

last:
	VAESENCLAST Z15, Z2, Z2
	RET

// SIXTEEN begins sixteen blocks of key stream, in Z2 to Z5, ROUND_SIXTEEN goes on,
// and LAST_SIXTEEN ends it.
#define SIXTEEN \
	COUNT(Z2); \
	COUNT(Z3); \
	COUNT(Z4); \
	COUNT(Z5)

#define ROUND_SIXTEEN(K) \
	VAESENC K, Z2, Z2; \
	VAESENC K, Z3, Z3; \
	VAESENC K, Z4, Z4; \
	VAESENC K, Z5, Z5

#define LAST_SIXTEEN \
	VAESENCLAST Z15, Z2, Z2; \
	VAESENCLAST Z15, Z3, Z3; \
	VAESENCLAST Z15, Z4, Z4; \
	VAESENCLAST Z15, Z5, Z5

// MULTIPLY begins a sum of products in its three parts, low, middle and high, to
// which MULTIPLY_ADD adds one more. B may be Z10.
#define MULTIPLY(A, B) \
	VPCLMULQDQ $0x00, B, A, Z6; \
	VPCLMULQDQ $0x01, B, A, Z7; \
	VPCLMULQDQ $0x10, B, A, Z9; \
	VPCLMULQDQ $0x11, B, A, Z8; \
	VPXORQ     Z9, Z7, Z7

#define MULTIPLY_ADD(A, B) \
	VPCLMULQDQ $0x00, B, A, Z9; \
	VPXORQ     Z9, Z6, Z6; \
	VPCLMULQDQ $0x11, B, A, Z9; \
	VPXORQ     Z9, Z8, Z8; \
	VPCLMULQDQ $0x01, B, A, Z9; \
	VPCLMULQDQ $0x10, B, A, Z10; \
	VPTERNLOGQ $0x96, Z9, Z10, Z7

// REDUCE makes an element of the sum, in Z1, as element.times does.
#define REDUCE \
	VPSLLDQ    $8, Z7, Z9; \
	VPSRLDQ    $8, Z7, Z10; \
	VPXORQ     Z9, Z6, Z6; \
	VPXORQ     Z10, Z8, Z8; \
	VPCLMULQDQ $0x00, modulus<>(SB), Z6, Z9; \
	VPSHUFD    $0x4e, Z6, Z6; \
	VPXORQ     Z9, Z6, Z6; \
	VPCLMULQDQ $0x00, modulus<>(SB), Z6, Z9; \
	VPSHUFD    $0x4e, Z6, Z6; \
	VPTERNLOGQ $0x96, Z9, Z8, Z6; \
	VMOVDQA64  Z6, Z1

// FOUR does four whole blocks, whose key stream is in Z, and leaves their
// ciphertext in C, the other way round.
#define FOUR(OFFSET, Z, C) \
	VMOVDQU64 OFFSET(SI), C; \
	VPXORQ    C, Z, Z; \
	VMOVDQU64 Z, OFFSET(DI); \
	VMOVDQA64 Z, K2, C; \
	VPSHUFB   Z31, C, C

// TEXT_SIXTEEN is FOUR for all of them.
#define TEXT_SIXTEEN \
	FOUR(0, Z2, Z11); \
	FOUR(64, Z3, Z12); \
	FOUR(128, Z4, Z14); \
	FOUR(192, Z5, Z30); \
	ADDQ $256, SI; \
	ADDQ $256, DI; \
	SUBQ $256, CX

// HASH adds four of those blocks to the sum of products.
#define HASH(OPERATION, C, POWER) \
	VMOVDQU64 (POWERS_END-POWER*16)(AX), Z10; \
	OPERATION(C, Z10)

// SOME does those octets of four blocks that K1 tells, with the key stream in Z2,
// and leaves their ciphertext there, and zero elsewhere.
#define SOME \
	VMOVDQU8.Z (SI), K1, Z12; \
	VPXORQ     Z12, Z2, Z2; \
	VMOVDQU8   Z2, K1, (DI); \
	VPBLENDMQ  Z2, Z12, K2, Z2; \
	VMOVDQU8.Z Z2, K1, Z2

// func crypt(a *aead, dst, src *byte, n int, m *message)
//
// Four blocks at a time lie in the lanes of a register. The first lane of all is
// that of the tag: its key stream is for the tag, its place in GHASH is that of
// the additional data. So the text begins in the second.
//
// Each lane of Z1 is a sum of its own until the end. Before m blocks more are
// added, the sum is multiplied with the power m of the hash key, and block i of
// them with the power m-i. The lanes of the first f blocks, at most four, are not
// multiplied yet: they are with the powers m+f to m+1. The last block has the
// lengths.
//
// Z0 counts, the other way round. Z16 and up are the round keys, Z15 is the last.
//
// While sixteen blocks are encrypted those before are hashed: the CPU has work while
// it waits for the result of a round. It does not look that far ahead by itself.
TEXT ·crypt(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ m+32(FP), DX
	VBROADCASTI32X4 reverse<>(SB), Z31
	VBROADCASTI32X4 (KEYS+0*16)(AX), Z16
	VBROADCASTI32X4 (KEYS+1*16)(AX), Z17
	VBROADCASTI32X4 (KEYS+2*16)(AX), Z18
	VBROADCASTI32X4 (KEYS+3*16)(AX), Z19
	VBROADCASTI32X4 (KEYS+4*16)(AX), Z20
	VBROADCASTI32X4 (KEYS+5*16)(AX), Z21
	VBROADCASTI32X4 (KEYS+6*16)(AX), Z22
	VBROADCASTI32X4 (KEYS+7*16)(AX), Z23
	VBROADCASTI32X4 (KEYS+8*16)(AX), Z24
	VBROADCASTI32X4 (KEYS+9*16)(AX), Z25
	VBROADCASTI32X4 (KEYS+10*16)(AX), Z26
	VBROADCASTI32X4 (KEYS+11*16)(AX), Z27
	VBROADCASTI32X4 (KEYS+12*16)(AX), Z28
	VBROADCASTI32X4 (KEYS+13*16)(AX), Z29
	MOVQ ROUNDS(AX), BX
	MOVQ BX, R8
	SHLQ $4, R8
	VBROADCASTI32X4 KEYS(AX)(R8*1), Z15
	KMOVQ SEALING(DX), K2
	VBROADCASTI32X4 COUNTER(DX), Z0
	VPSHUFB Z31, Z0, Z0
	VPADDD lanes<>(SB), Z0, Z0

	// The tag's lane, and up to three blocks of text.
	CALL keyStream<>(SB)
	VMOVDQU X2, TAG(DX)
	VALIGNQ $2, Z2, Z2, Z2
	MOVQ $48, R9
	CMPQ CX, R9
	CMOVQLT CX, R9
	MOVQ $-1, R8
	BZHIQ R9, R8, R8
	KMOVQ R8, K1
	SOME
	VBROADCASTI32X4 ADDITIONAL(DX), Z3
	VALIGNQ $6, Z3, Z2, Z2
	VPSHUFB Z31, Z2, Z1
	ADDQ $(15+16), R9
	ANDQ $~15, R9 // how long the powers of these lanes are
	ADDQ $48, SI
	ADDQ $48, DI
	SUBQ $(48+256), CX
	JL rest
	VMOVDQU64 (POWERS_END-20*16)(AX), Z13
	SIXTEEN
	NINE(ROUND_SIXTEEN)
	LONG(ROUND_SIXTEEN, first)

first:
	LAST_SIXTEEN
	TEXT_SIXTEEN
	JL hash

sixteen:
	SIXTEEN
	ROUND_SIXTEEN(Z17)
	HASH(MULTIPLY, Z11, 16)
	ROUND_SIXTEEN(Z18)
	ROUND_SIXTEEN(Z19)
	HASH(MULTIPLY_ADD, Z12, 12)
	ROUND_SIXTEEN(Z20)
	ROUND_SIXTEEN(Z21)
	HASH(MULTIPLY_ADD, Z14, 8)
	ROUND_SIXTEEN(Z22)
	ROUND_SIXTEEN(Z23)
	HASH(MULTIPLY_ADD, Z30, 4)
	ROUND_SIXTEEN(Z24)
	MULTIPLY_ADD(Z1, Z13)
	ROUND_SIXTEEN(Z25)
	REDUCE
	VBROADCASTI32X4 (POWERS_END-16*16)(AX), Z13
	LONG(ROUND_SIXTEEN, last)

last:
	LAST_SIXTEEN
	TEXT_SIXTEEN
	JGE sixteen

hash:
	HASH(MULTIPLY, Z11, 16)
	HASH(MULTIPLY_ADD, Z12, 12)
	HASH(MULTIPLY_ADD, Z14, 8)
	HASH(MULTIPLY_ADD, Z30, 4)
	MULTIPLY_ADD(Z1, Z13)
	REDUCE
	XORL R9, R9

rest:
	// The powers of these blocks and of the lengths begin at R10.
	XORL R8, R8
	ADDQ $256, CX
	CMOVQLT R8, CX
	LEAQ (15+16)(CX), R8
	ANDQ $~15, R8
	LEAQ POWERS_END(AX), R10
	SUBQ R8, R10
	VBROADCASTI32X4 (R10), Z13
	TESTQ R9, R9
	JE sum
	NEGQ R9
	VMOVDQU64 (R10)(R9*1), Z13

sum:
	MULTIPLY(Z1, Z13)
	VMOVDQU LENGTHS(DX), X2
	VPSHUFB X31, X2, X2
	VMOVDQU (POWERS_END-16)(AX), X11
	MULTIPLY_ADD(Z2, Z11)
	TESTQ CX, CX
	JE reduce

four:
	CALL keyStream<>(SB)
	MOVQ $-1, R8
	BZHIQ CX, R8, R8
	KMOVQ R8, K1
	SOME
	VPSHUFB Z31, Z2, Z2
	VMOVDQU64 (R10), Z11
	MULTIPLY_ADD(Z2, Z11)
	ADDQ $64, SI
	ADDQ $64, DI
	ADDQ $64, R10
	SUBQ $64, CX
	JG four

reduce:
	REDUCE
	VEXTRACTI64X4 $1, Z1, Y2
	VPXORQ Y2, Y1, Y1
	VEXTRACTI32X4 $1, Y1, X2
	VPXORQ X2, X1, X1
	VPSHUFB X31, X1, X1
	VPXORQ TAG(DX), X1, X1
	VMOVDQU X1, TAG(DX)
	VZEROUPPER
	RET
