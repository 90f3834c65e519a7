#include "textflag.h"

// Fields of aead.
#define ROUNDS 0
#define KEYS 8
#define POWERS 248
#define FIRST_POWER (POWERS+16*16)

// All octets of a block the other way round.
DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// Those of the counter in a counter block.
DATA turn<>+0(SB)/8, $0x0706050403020100
DATA turn<>+8(SB)/8, $0x0c0d0e0f0b0a0908
GLOBL turn<>(SB), RODATA|NOPTR, $16

// What four lanes add to the counter, and what each adds after that.
DATA lanes<>+0(SB)/8, $0
DATA lanes<>+8(SB)/8, $0
DATA lanes<>+16(SB)/8, $0
DATA lanes<>+24(SB)/8, $0x0000000100000000
DATA lanes<>+32(SB)/8, $0
DATA lanes<>+40(SB)/8, $0x0000000200000000
DATA lanes<>+48(SB)/8, $0
DATA lanes<>+56(SB)/8, $0x0000000300000000
GLOBL lanes<>(SB), RODATA|NOPTR, $64

DATA four<>+0(SB)/8, $0
DATA four<>+8(SB)/8, $0x0000000400000000
GLOBL four<>(SB), RODATA|NOPTR, $16

// The upper half of the modulus, see element.go.
DATA modulus<>+0(SB)/8, $0xc200000000000000
DATA modulus<>+8(SB)/8, $0xc200000000000000
GLOBL modulus<>(SB), RODATA|NOPTR, $16

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	VMOVD AX, X0
	VPSHUFD $0, X0, X0
	VAESKEYGENASSIST $0, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+8(FP)
	RET

// COUNT makes four counter blocks and moves on.
#define COUNT(Z) \
	VPSHUFB Z31, Z0, Z; \
	VPADDD  Z1, Z0, Z0; \
	VPXORQ  Z16, Z, Z

#define ROUND4(K) \
	VAESENC K, Z4, Z4; \
	VAESENC K, Z5, Z5; \
	VAESENC K, Z6, Z6; \
	VAESENC K, Z7, Z7

// func ctr(a *aead, dst, src *byte, n int, counter *[blockLen]byte)
//
// Z0 counts, in little endian. Z16 and up are the round keys, Z15 is the last.
TEXT ·ctr(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ counter+32(FP), DX
	VBROADCASTI32X4 turn<>(SB), Z31
	VBROADCASTI32X4 (DX), Z0
	VPSHUFB Z31, Z0, Z0
	VPADDD lanes<>(SB), Z0, Z0
	VBROADCASTI32X4 four<>(SB), Z1
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
	MOVQ BX, DX
	SHLQ $4, DX
	VBROADCASTI32X4 KEYS(AX)(DX*1), Z15
	SUBQ $256, CX
	JB rest

sixteen:
	COUNT(Z4)
	COUNT(Z5)
	COUNT(Z6)
	COUNT(Z7)
	ROUND4(Z17)
	ROUND4(Z18)
	ROUND4(Z19)
	ROUND4(Z20)
	ROUND4(Z21)
	ROUND4(Z22)
	ROUND4(Z23)
	ROUND4(Z24)
	ROUND4(Z25)
	CMPQ BX, $12
	JB sixteenLast
	ROUND4(Z26)
	ROUND4(Z27)
	JE sixteenLast
	ROUND4(Z28)
	ROUND4(Z29)

sixteenLast:
	VAESENCLAST Z15, Z4, Z4
	VAESENCLAST Z15, Z5, Z5
	VAESENCLAST Z15, Z6, Z6
	VAESENCLAST Z15, Z7, Z7
	VPXORQ 0(SI), Z4, Z4
	VPXORQ 64(SI), Z5, Z5
	VPXORQ 128(SI), Z6, Z6
	VPXORQ 192(SI), Z7, Z7
	VMOVDQU64 Z4, 0(DI)
	VMOVDQU64 Z5, 64(DI)
	VMOVDQU64 Z6, 128(DI)
	VMOVDQU64 Z7, 192(DI)
	ADDQ $256, SI
	ADDQ $256, DI
	SUBQ $256, CX
	JAE sixteen

rest:
	ADDQ $256, CX
	JE done

// Four blocks or less. K1 has the octets of them that there are.
four:
	MOVQ $-1, DX
	BZHIQ CX, DX, DX
	KMOVQ DX, K1
	COUNT(Z4)
	VAESENC Z17, Z4, Z4
	VAESENC Z18, Z4, Z4
	VAESENC Z19, Z4, Z4
	VAESENC Z20, Z4, Z4
	VAESENC Z21, Z4, Z4
	VAESENC Z22, Z4, Z4
	VAESENC Z23, Z4, Z4
	VAESENC Z24, Z4, Z4
	VAESENC Z25, Z4, Z4
	CMPQ BX, $12
	JB fourLast
	VAESENC Z26, Z4, Z4
	VAESENC Z27, Z4, Z4
	JE fourLast
	VAESENC Z28, Z4, Z4
	VAESENC Z29, Z4, Z4

fourLast:
	VAESENCLAST Z15, Z4, Z4
	VMOVDQU8.Z (SI), K1, Z5
	VPXORQ Z5, Z4, Z4
	VMOVDQU8 Z4, K1, (DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JA four

done:
	VZEROUPPER
	RET

// MULTIPLY begins a sum of products in its three parts, low, middle and high, of
// which MULTIPLY_ADD adds one more.
#define MULTIPLY(A, B) \
	VPCLMULQDQ $0x00, B, A, Z4; \
	VPCLMULQDQ $0x01, B, A, Z5; \
	VPCLMULQDQ $0x10, B, A, Z8; \
	VPCLMULQDQ $0x11, B, A, Z6; \
	VPXORQ     Z8, Z5, Z5

#define MULTIPLY_ADD(A, B) \
	VPCLMULQDQ $0x00, B, A, Z8; \
	VPCLMULQDQ $0x01, B, A, Z9; \
	VPCLMULQDQ $0x10, B, A, Z10; \
	VPCLMULQDQ $0x11, B, A, Z11; \
	VPXORQ     Z8, Z4, Z4; \
	VPTERNLOGQ $0x96, Z9, Z10, Z5; \
	VPXORQ     Z11, Z6, Z6

// REDUCE makes an element of the sum, in Z0, as element.times does.
#define REDUCE \
	VPSLLDQ    $8, Z5, Z8; \
	VPSRLDQ    $8, Z5, Z9; \
	VPXORQ     Z8, Z4, Z4; \
	VPXORQ     Z9, Z6, Z6; \
	VPCLMULQDQ $0x00, Z30, Z4, Z8; \
	VPSHUFD    $0x4e, Z4, Z4; \
	VPXORQ     Z8, Z4, Z4; \
	VPCLMULQDQ $0x00, Z30, Z4, Z8; \
	VPSHUFD    $0x4e, Z4, Z4; \
	VPXORQ     Z8, Z4, Z0; \
	VPXORQ     Z6, Z0, Z0

// func ghash(a *aead, out, first *[blockLen]byte, data *byte, n int, last *[blockLen]byte)
//
// Each lane of Z0 is a sum of its own until the end. A block of a group of m is
// multiplied with the power m-i, and so is, with m, the sum before. To begin with
// that is the first block, which is not multiplied yet: with one power more, R9
// octets before.
TEXT ·ghash(SB), NOSPLIT, $0-48
	MOVQ a+0(FP), AX
	MOVQ first+16(FP), DX
	MOVQ data+24(FP), SI
	MOVQ n+32(FP), CX
	VBROADCASTI32X4 reverse<>(SB), Z31
	VBROADCASTI32X4 modulus<>(SB), Z30
	VMOVDQU (DX), X0
	VPSHUFB X31, X0, X0
	MOVQ $-16, R9
	SUBQ $256, CX
	JB rest
	VMOVDQU64 (POWERS+16)(AX), Z16
	VMOVDQU64 (POWERS+16+64)(AX), Z17
	VMOVDQU64 (POWERS+16+128)(AX), Z18
	VMOVDQU64 (POWERS+16+192)(AX), Z19

sixteen:
	VBROADCASTI32X4 (POWERS+16)(AX)(R9*1), Z12
	MULTIPLY(Z0, Z12)
	VMOVDQU64 0(SI), Z1
	VPSHUFB Z31, Z1, Z1
	MULTIPLY_ADD(Z1, Z16)
	VMOVDQU64 64(SI), Z2
	VPSHUFB Z31, Z2, Z2
	MULTIPLY_ADD(Z2, Z17)
	VMOVDQU64 128(SI), Z3
	VPSHUFB Z31, Z3, Z3
	MULTIPLY_ADD(Z3, Z18)
	VMOVDQU64 192(SI), Z1
	VPSHUFB Z31, Z1, Z1
	MULTIPLY_ADD(Z1, Z19)
	REDUCE
	XORL R9, R9
	ADDQ $256, SI
	SUBQ $256, CX
	JAE sixteen

rest:
	ADDQ $256, CX
	MOVQ CX, R8
	ORQ R9, R8
	JE fold

	// The powers of m blocks begin m before the end.
	LEAQ 15(CX), R8
	ANDQ $~15, R8
	LEAQ (FIRST_POWER+16)(AX), DX
	SUBQ R8, DX
	VBROADCASTI32X4 (DX)(R9*1), Z12
	MULTIPLY(Z0, Z12)
	TESTQ CX, CX
	JE reduce

four:
	MOVQ $-1, R8
	BZHIQ CX, R8, R8
	KMOVQ R8, K1
	VMOVDQU8.Z (SI), K1, Z1
	VPSHUFB Z31, Z1, Z1
	VMOVDQU64 (DX), Z2
	MULTIPLY_ADD(Z1, Z2)
	ADDQ $64, SI
	ADDQ $64, DX
	SUBQ $64, CX
	JA four

reduce:
	REDUCE

fold:
	VEXTRACTI64X4 $1, Z0, Y1
	VPXORQ Y1, Y0, Y0
	VEXTRACTI64X2 $1, Y0, X1
	VPXORQ X1, X0, X0
	MOVQ last+40(FP), DX
	VMOVDQU (DX), X1
	VPSHUFB X31, X1, X1
	VPXORQ X1, X0, X0
	VMOVDQU FIRST_POWER(AX), X12
	MULTIPLY(Z0, Z12)
	REDUCE
	VPSHUFB X31, X0, X0
	MOVQ out+8(FP), DX
	VMOVDQU X0, (DX)
	VZEROUPPER
	RET
