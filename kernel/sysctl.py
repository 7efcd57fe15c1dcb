"""/proc/sys: the tunables that the kernel itself reads.

Models ``kernel/sysctl.c`` and ``Documentation/admin-guide/sysctl``.  Defaults are those of Linux 6.18 on x86-64.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Sysctl:
    """One field for each tunable; units as in the manual (``mmap_min_addr`` in bytes)."""

    max_map_count: int = 65530
    overcommit_memory: int = 0
    overcommit_ratio: int = 50
    overcommit_kbytes: int = 0
    mmap_min_addr: int = 65536
    swappiness: int = 60
    drop_caches: int = 0
    panic_on_oom: int = 0
    oom_kill_allocating_task: int = 0
    laptop_mode: int = 0
    dirty_ratio: int = 20
    dirty_background_ratio: int = 10
    min_free_kbytes: int = 0
    """Follows from the size of RAM."""
    page_cluster: int = 3
    admin_reserve_kbytes: int = 8192
    user_reserve_kbytes: int = 131072
    pid_max: int = 32768
    threads_max: int = 16384
    hostname: str = "pagewalk"
    domainname: str = "(none)"
    randomize_va_space: int = 0
    core_pattern: str = "core"
    pipe_max_size: int = 1048576
    file_max: int = 1048576
    nr_open: int = 1048576
    protected_hardlinks: int = 1
    protected_symlinks: int = 1
