"""Event bits of poll(2) and epoll(7) (``include/uapi/linux/eventpoll.h``, ``asm-generic/poll.h``)."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class PollEvents(IntFlag):
    POLLIN = 0x001
    POLLPRI = 0x002
    POLLOUT = 0x004
    POLLERR = 0x008
    POLLHUP = 0x010
    POLLNVAL = 0x020
    POLLRDNORM = 0x040
    POLLRDBAND = 0x080
    POLLWRNORM = 0x100
    POLLWRBAND = 0x200
    POLLMSG = 0x400
    POLLRDHUP = 0x2000


POLLIN, POLLPRI, POLLOUT, POLLERR, POLLHUP, POLLNVAL = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
POLLRDNORM, POLLRDBAND, POLLWRNORM, POLLWRBAND, POLLMSG, POLLRDHUP = 0x40, 0x80, 0x100, 0x200, 0x400, 0x2000

# What a file without a poll method reports: always ready.
DEFAULT_POLLMASK = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM

# Which masks make select's three sets (fs/select.c).
POLLIN_SET = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR
POLLOUT_SET = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR
POLLEX_SET = POLLPRI

EPOLLEXCLUSIVE = 1 << 28
EPOLLWAKEUP = 1 << 29
EPOLLONESHOT = 1 << 30
EPOLLET = 1 << 31
EP_PRIVATE_BITS = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET


class EpollOp(IntEnum):
    EPOLL_CTL_ADD = 1
    EPOLL_CTL_DEL = 2
    EPOLL_CTL_MOD = 3


EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3


class EpollCreateFlags(IntFlag):
    EPOLL_CLOEXEC = 0o2000000


class EventfdFlags(IntFlag):
    EFD_SEMAPHORE = 1
    EFD_NONBLOCK = 0o4000
    EFD_CLOEXEC = 0o2000000


EFD_SEMAPHORE = 1


class TimerfdFlags(IntFlag):
    TFD_NONBLOCK = 0o4000
    TFD_CLOEXEC = 0o2000000


class TimerfdTimerFlags(IntFlag):
    TFD_TIMER_ABSTIME = 1
    TFD_TIMER_CANCEL_ON_SET = 2


class SignalfdFlags(IntFlag):
    SFD_NONBLOCK = 0o4000
    SFD_CLOEXEC = 0o2000000
