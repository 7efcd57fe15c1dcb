"""Restartable sequences.  Models ``include/uapi/linux/rseq.h``."""

from __future__ import annotations

import struct

RSEQ_FLAG_UNREGISTER = 1
RSEQ_CPU_ID_UNINITIALIZED = 0xFFFF_FFFF
ORIG_RSEQ_SIZE = 32
RSEQ_FEATURE_SIZE = 28
"""AT_RSEQ_FEATURE_SIZE: up to and with ``mm_cid``."""
RSEQ_ALIGN = 32
"""AT_RSEQ_ALIGN."""

CPU_ID_START = struct.Struct("<II")
"""cpu_id_start, cpu_id: the first fields of ``struct rseq``."""
RSEQ_CS_OFFSET = 8
NODE_ID_OFFSET = 20
NODE_ID = struct.Struct("<II")
"""node_id, mm_cid."""
RSEQ_CS = struct.Struct("<IIQQQ")
"""``struct rseq_cs``: version, flags, start_ip, post_commit_offset, abort_ip."""
