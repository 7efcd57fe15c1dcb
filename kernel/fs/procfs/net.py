"""/proc/PID/net: the sockets of the machine.

Models ``net/ipv4/tcp_ipv4.c`` (``tcp4_seq_show``), ``net/ipv4/udp.c``, ``net/unix/af_unix.c`` (``unix_seq_show``) and
``net/core/net-procfs.c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.fs.procfs.base import PseudoSuper, StaticDir

if TYPE_CHECKING:
    from kernel.kernel import Kernel

_DEV_HEADER = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier "
    "compressed\n"
)
_ROUTE_HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"


def _dev_text(kernel: Kernel) -> str:
    return _DEV_HEADER + "    lo:" + f"{0:8}{0:8}{0:5}{0:5}{0:5}{0:6}{0:11}{0:10}" + " " + (
        f"{0:8}{0:8}{0:5}{0:5}{0:5}{0:6}{0:8}{0:11}\n"
    )  # fmt: skip


def _unix_text(kernel: Kernel) -> str:
    return "Num       RefCount Protocol Flags    Type St Inode Path\n" + kernel.vfs.net.unix_lines()


def _tcp_text(kernel: Kernel) -> str:
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
    return header.ljust(149) + "\n" + kernel.vfs.net.inet_lines("tcp")


def _udp_text(kernel: Kernel) -> str:
    header = (
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer "
        "drops"
    )
    return header.ljust(127) + "\n" + kernel.vfs.net.inet_lines("udp")


def make_net_dir(sb: PseudoSuper) -> StaticDir:
    """The one net directory (there is one network name space)."""

    def make() -> StaticDir:
        kernel = sb.kernel
        directory = StaticDir(sb, sb.new_ino())
        directory.add_text("dev", lambda task: _dev_text(kernel))
        directory.add_text("unix", lambda task: _unix_text(kernel))
        directory.add_text("tcp", lambda task: _tcp_text(kernel))
        directory.add_text("udp", lambda task: _udp_text(kernel))
        directory.add_text("route", lambda task: _ROUTE_HEADER.ljust(127) + "\n")
        directory.add_text("if_inet6", lambda task: "")
        return directory

    inode = sb.once("net", make)
    assert isinstance(inode, StaticDir)
    return inode
