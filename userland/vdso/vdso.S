# The [vdso] of pagewalk: the functions that the C library looks for, each of which simply makes the system call.
# Time is the kernel's virtual clock, which only the kernel can read, so nothing is gained by sharing data pages.
# Built by build.sh into kernel/vdso64.so.  Symbol names and versions: vdso(7), arch/x86/entry/vdso/vdso.lds.S.

	.macro VSYSCALL name, number
	.globl	__vdso_\name
	.type	__vdso_\name, @function
	.weak	\name
	.type	\name, @function
	.balign	16
__vdso_\name:
\name:
	.cfi_startproc
	mov	$\number, %eax
	syscall
	ret
	.cfi_endproc
	.size	__vdso_\name, . - __vdso_\name
	.size	\name, . - \name
	.endm

	.text
	VSYSCALL clock_gettime, 228
	VSYSCALL gettimeofday, 96
	VSYSCALL time, 201
	VSYSCALL clock_getres, 229
	VSYSCALL getcpu, 309

	.section .note.Linux, "a", @note
	.balign	4
	.long	6, 4, 0
	.asciz	"Linux"
	.balign	4
	.long	0x61200			# 6.18.0
	.section .note.GNU-stack, "", @progbits
