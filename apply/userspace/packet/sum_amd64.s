#include "textflag.h"

// func sumWords(b *byte, n int) uint64
//
// Eight words of 32 bits a register, in lanes of 64 that do not overflow.
TEXT ·sumWords(SB), NOSPLIT, $0-24
	MOVQ b+0(FP), SI
	MOVQ n+8(FP), CX
	VPXORQ Z0, Z0, Z0
	VPXORQ Z1, Z1, Z1
	SUBQ $64, CX
	JB rest

loop:
	VPMOVZXDQ 0(SI), Z2
	VPMOVZXDQ 32(SI), Z3
	VPADDQ Z2, Z0, Z0
	VPADDQ Z3, Z1, Z1
	ADDQ $64, SI
	SUBQ $64, CX
	JAE loop

rest:
	ADDQ $64, CX
	JE sum
	MOVQ $-1, AX
	BZHIQ CX, AX, AX
	KMOVQ AX, K1
	VMOVDQU8.Z (SI), K1, Z2
	VPMOVZXDQ Y2, Z3
	VEXTRACTI64X4 $1, Z2, Y2
	VPMOVZXDQ Y2, Z2
	VPADDQ Z2, Z0, Z0
	VPADDQ Z3, Z1, Z1

sum:
	VPADDQ Z1, Z0, Z0
	VEXTRACTI64X4 $1, Z0, Y1
	VPADDQ Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDQ X1, X0, X0
	VMOVQ X0, AX
	MOVQ AX, ret+16(FP)
	VZEROUPPER
	RET
