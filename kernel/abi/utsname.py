"""What uname(2), /proc/version and /proc/sys/kernel say about the kernel."""

from __future__ import annotations

UTS_SYSNAME = "Linux"
UTS_RELEASE = "6.18.0-pagewalk"
UTS_VERSION = "#1 SMP PREEMPT_DYNAMIC"
UTS_MACHINE = "x86_64"
PROC_VERSION = f"{UTS_SYSNAME} version {UTS_RELEASE} (pagewalk) (python) {UTS_VERSION}\n"
