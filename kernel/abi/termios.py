"""Terminal settings: termios(3), ioctl_tty(2) (``include/uapi/asm-generic/termbits.h``, ``termios.h``)."""

from __future__ import annotations

import struct

NCCS = 19
VINTR, VQUIT, VERASE, VKILL, VEOF, VTIME, VMIN, VSWTC, VSTART, VSTOP = range(10)
VSUSP, VEOL, VREPRINT, VDISCARD, VWERASE, VLNEXT, VEOL2 = range(10, 17)

# c_iflag
IGNBRK, BRKINT, IGNPAR, PARMRK, INPCK, ISTRIP, INLCR, IGNCR = (1 << bit for bit in range(8))
ICRNL, IUCLC, IXON, IXANY, IXOFF, IMAXBEL, IUTF8 = (1 << bit for bit in range(8, 15))
# c_oflag
OPOST, OLCUC, ONLCR, OCRNL, ONOCR, ONLRET = (1 << bit for bit in range(6))
TABDLY = XTABS = 0o14000
# c_cflag
CBAUD, CSIZE, CS8, CREAD, HUPCL, CLOCAL = 0o10017, 0o60, 0o60, 0o200, 0o2000, 0o4000
B38400 = 0o17
# c_lflag
ISIG, ICANON, XCASE, ECHO, ECHOE, ECHOK, ECHONL, NOFLSH = (1 << bit for bit in range(8))
TOSTOP, ECHOCTL, ECHOPRT, ECHOKE, FLUSHO = (1 << bit for bit in range(8, 13))
PENDIN, IEXTEN, EXTPROC = 0o40000, 0o100000, 0o200000

_DEFAULT_CC = bytes((3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0))
_TERMIOS = struct.Struct("<IIIIB19s")
_TERMIOS2 = struct.Struct("<IIIIB19sII")
_TERMIO = struct.Struct("<HHHHB8sx")
TERMIOS_SIZE, TERMIOS2_SIZE, TERMIO_SIZE = _TERMIOS.size, _TERMIOS2.size, _TERMIO.size


class Termios:
    """``struct ktermios``: speeds in bits a second."""

    __slots__ = ("cc", "cflag", "iflag", "ispeed", "lflag", "line", "oflag", "ospeed")

    def __init__(self) -> None:
        """tty_std_termios."""
        self.iflag = ICRNL | IXON
        self.oflag = OPOST | ONLCR
        self.cflag = B38400 | CS8 | CREAD | HUPCL
        self.lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN
        self.line = 0
        self.cc = _DEFAULT_CC
        self.ispeed = self.ospeed = 38400

    def copy(self) -> Termios:
        new = Termios()
        for name in Termios.__slots__:
            setattr(new, name, getattr(self, name))
        return new

    def pack(self) -> bytes:
        """``struct termios`` of TCGETS."""
        return _TERMIOS.pack(self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.cc)

    def pack2(self) -> bytes:
        """``struct termios2`` of TCGETS2."""
        return _TERMIOS2.pack(
            self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.cc, self.ispeed, self.ospeed
        )

    def pack_old(self) -> bytes:
        """``struct termio`` of TCGETA."""
        flags = (value & 0xFFFF for value in (self.iflag, self.oflag, self.cflag, self.lflag))
        return _TERMIO.pack(*flags, self.line, self.cc[:8])

    def set(self, raw: bytes) -> None:
        self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.cc = _TERMIOS.unpack(raw)

    def set2(self, raw: bytes) -> None:
        fields = _TERMIOS2.unpack(raw)
        self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.cc, self.ispeed, self.ospeed = fields

    def set_old(self, raw: bytes) -> None:
        iflag, oflag, cflag, lflag, self.line, cc = _TERMIO.unpack(raw)
        self.iflag = self.iflag & ~0xFFFF | iflag
        self.oflag = self.oflag & ~0xFFFF | oflag
        self.cflag = self.cflag & ~0xFFFF | cflag
        self.lflag = self.lflag & ~0xFFFF | lflag
        self.cc = cc + self.cc[8:]


WINSIZE = struct.Struct("<HHHH")
"""``struct winsize``: rows, columns, and the size in pixels."""

TCGETS, TCSETS, TCSETSW, TCSETSF, TCGETA, TCSETA, TCSETAW, TCSETAF = range(0x5401, 0x5409)
TCSBRK, TCXONC, TCFLSH, TIOCEXCL, TIOCNXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP = range(0x5409, 0x5411)
TIOCOUTQ, TIOCSTI, TIOCGWINSZ, TIOCSWINSZ = 0x5411, 0x5412, 0x5413, 0x5414
TIOCPKT, TIOCNOTTY, TIOCSETD, TIOCGETD, TCSBRKP, TIOCGSID = 0x5420, 0x5422, 0x5423, 0x5424, 0x5425, 0x5429
TCGETS2, TCSETS2, TCSETSW2, TCSETSF2 = 0x802C542A, 0x402C542B, 0x402C542C, 0x402C542D
TIOCGPTN, TIOCSPTLCK, TIOCGPTLCK, TIOCGEXCL, TIOCGPTPEER = 0x80045430, 0x40045431, 0x80045439, 0x80045440, 0x5441

TCIFLUSH, TCOFLUSH, TCIOFLUSH = 0, 1, 2
TCOOFF, TCOON, TCIOFF, TCION = 0, 1, 2, 3
TIOCPKT_DATA = 0
