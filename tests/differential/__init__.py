"""Random scripts of memory operations, run by the host's kernel and by ours: every line must agree."""
