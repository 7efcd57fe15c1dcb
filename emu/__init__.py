"""The machine around the kernel: Unicorn, host files, the terminal, the command line, traces, reports."""
