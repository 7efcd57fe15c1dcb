"""gdb's remote serial protocol: ``pagewalk run --gdb PORT``.

``packets`` frames packets on a socket; ``registers`` describes the register file; ``memory`` and ``files`` reach into
the guest; ``debugger`` runs tasks under the debugger's orders and knows why they stop; ``stub`` answers packets.

Manual: "Debugging with GDB", appendix E (Remote Protocol) and G (Target Descriptions); ptrace(2) for what stops mean.
"""
