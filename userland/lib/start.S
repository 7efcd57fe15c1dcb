/* Entry point of the freestanding guest programs: hands (argc, argv, envp) to main and exits with its
   result.  No libc, no TLS, no relocation: what a trace shows is the program and nothing else. */

    .file   "start.S"
    .text
    .globl  _start
    .type   _start, @function
_start:
    xorl    %ebp, %ebp              /* end of the frame chain */
    movq    (%rsp), %rdi            /* argc */
    leaq    8(%rsp), %rsi           /* argv */
    leaq    8(%rsi,%rdi,8), %rdx    /* envp, behind argv's NULL */
    movq    %rdx, environment(%rip)
    andq    $-16, %rsp
    call    main
    movl    %eax, %edi
    call    quit
    .size   _start, . - _start

/* rt_sigreturn: the return address that every handler needs (SA_RESTORER). */
    .globl  signal_restorer
    .type   signal_restorer, @function
signal_restorer:
    movl    $15, %eax
    syscall
    .size   signal_restorer, . - signal_restorer

/* long raw_syscall(long nr, long args[6]): all six arguments, for programs that compute the number. */
    .globl  raw_syscall
    .type   raw_syscall, @function
raw_syscall:
    movq    %rdi, %rax
    movq    %rsi, %r11
    movq    0(%r11), %rdi
    movq    8(%r11), %rsi
    movq    16(%r11), %rdx
    movq    24(%r11), %r10
    movq    32(%r11), %r8
    movq    40(%r11), %r9
    syscall
    ret
    .size   raw_syscall, . - raw_syscall

/* Accesses that may fault.  guard.c's handler moves RIP to guarded_fault when the faulting instruction
   lies between guarded_start and guarded_end; the result is then -1. */
    .globl  guarded_start, guarded_end, guarded_fault, guarded_load, guarded_store, guarded_call
guarded_start:
    .type   guarded_load, @function
guarded_load:                       /* int guarded_load(const volatile void *byte) */
    movzbl  (%rdi), %eax
    ret
    .size   guarded_load, . - guarded_load
    .type   guarded_store, @function
guarded_store:                      /* int guarded_store(volatile void *byte, int value) */
    movb    %sil, (%rdi)
    xorl    %eax, %eax
    ret
    .size   guarded_store, . - guarded_store
guarded_end:
    .type   guarded_fault, @function
guarded_fault:
    movl    $-1, %eax
    ret
    .size   guarded_fault, . - guarded_fault

/* int guarded_call(void *code): calls code with RAX = 0 (so that a page of zero bytes, "add %al,(%rax)", faults
   at address 0).  A fault anywhere in it comes back to guarded_call_fault with the stack as it was here. */
    .globl  guarded_call_fault
    .type   guarded_call, @function
guarded_call:
    pushq   %rbx
    movq    %rsp, guarded_call_sp(%rip)
    xorl    %eax, %eax
    call    *%rdi
    movq    $0, guarded_call_sp(%rip)
    xorl    %eax, %eax
    popq    %rbx
    ret
guarded_call_fault:
    movq    guarded_call_sp(%rip), %rsp
    movq    $0, guarded_call_sp(%rip)
    movl    $-1, %eax
    popq    %rbx
    ret
    .size   guarded_call, . - guarded_call

    .bss
    .globl  guarded_call_sp, environment
    .balign 8
guarded_call_sp:
    .quad   0
environment:
    .quad   0

    .section .note.GNU-stack, "", @progbits
