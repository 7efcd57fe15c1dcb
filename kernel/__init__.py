"""A Linux kernel in Python: tasks, memory management, files, signals, system calls."""
