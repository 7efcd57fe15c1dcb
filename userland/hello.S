/* Hello, world: two system calls, no runtime. */

    .file   "hello.S"
    .text
    .globl  _start
    .type   _start, @function
_start:
    movl    $1, %eax                /* write(1, message, length) */
    movl    $1, %edi
    leaq    message(%rip), %rsi
    movl    $message_end - message, %edx
    syscall
    movl    $231, %eax              /* exit_group(0) */
    xorl    %edi, %edi
    syscall
    .size   _start, . - _start

    .section .rodata
message:
    .ascii  "Hello, world\n"
message_end:

    .section .note.GNU-stack, "", @progbits
