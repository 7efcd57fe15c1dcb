"""/proc: texts about tasks and the machine, made when they are read.

    base.py     the inodes and open files that all entries are made of
    root.py     /proc itself: self, numbers of processes, files about the machine
    system.py   the machine's texts (meminfo, stat, cpuinfo ...)
    pid.py      /proc/PID: which entries there are
    array.py    /proc/PID/stat, status, limits ...
    fd.py       /proc/PID/fd and fdinfo
    mem.py      /proc/PID/mem, pagemap, environ, cmdline, auxv
    mounts.py   mounts, mountinfo
    sysctl.py   /proc/sys
    net.py      /proc/PID/net

Models ``fs/proc``.  Manual: proc(5).
"""
