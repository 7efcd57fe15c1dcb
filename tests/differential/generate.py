"""Random scripts for ``images/vmscript``: what a hostile but realistic user of the memory calls would do.

A script is made from a number (its seed) alone.  Pages lie close together, so that areas touch, join, split and are
moved over each other; a share of the arguments is wrong on purpose (unaligned, zero, huge, flags that do not go
together).  Left out is what the host and we may answer differently and both be right: which pages are resident after
advice that only advises, huge pages, and limits of the host's own (RLIMIT_MEMLOCK of an unprivileged user).
"""

from __future__ import annotations

import random

NR_PAGES = 40
"""The part of the arena that scripts work in: small, so that operations meet."""
MIN_OPERATIONS = 18

_PROTS = ("rw", "rw", "rw", "rw", "r", "r", "rwx", "rx", "-", "w", "x")
_ADVICE = (
    "normal random sequential willneed dontneed dontneed free remove dontfork dofork dontdump dodump wipeonfork "
    "keeponfork cold populate_read populate_write dontneed_locked 4095"
).split()
_REMAP_FLAGS = ("M", "M", "MF", "MF", "MF", "MF", "MD", "MFD", "-", "-", "F", "D", "FD", "8", "9")


class Generator:
    """Makes one script."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.used: list[int] = []
        """Pages where something was mapped: most operations go there."""
        self.depth = 0

    def script(self) -> list[str]:
        """At least MIN_OPERATIONS operations, forked blocks and what is in them counted too."""
        rnd = self.random
        ops = [self.map() for _ in range(rnd.randint(1, 4))]
        length = MIN_OPERATIONS + rnd.randrange(16)
        while len(ops) < length:
            ops += self.operation()
        return ops

    def operation(self) -> list[str]:
        rnd = self.random
        roll = rnd.randrange(100)
        if roll < 17:
            return [self.map()]
        if roll < 33:
            return [self.protect()]
        if roll < 50:
            return [f"w:{self.page()}:{rnd.randint(1, 255)}" if rnd.random() < 0.7 else f"w:{self.page()}"]
        if roll < 55:
            return [f"r:{self.page()}"]
        if roll < 62:
            return [f"u:{self.page()}:{self.length()}"]
        if roll < 82:
            return [self.remap()]
        if roll < 87:
            return [self.lock()]
        if roll < 93:
            return [f"a:{self.page()}:{self.length()}:{rnd.choice(_ADVICE)}"]
        if roll < 95:
            return [f"y:{self.page()}:{self.length()}:{rnd.choice(('A', 'S', 'I', 'AS', 'SI', '-'))}"]
        if roll < 96:
            return [rnd.choice(("M", "D"))]
        if self.depth:
            return [f"R:{self.page()}:{rnd.randint(1, 4)}"]
        return self.fork()

    def fork(self) -> list[str]:
        self.depth += 1
        used = list(self.used)
        inner: list[str] = []
        for _ in range(self.random.randint(2, 6)):
            inner += self.operation()
        self.used = used
        self.depth -= 1
        return ["f{", *inner, *self.random.sample(["M", "D"], self.random.randrange(3)), "f}"]

    # ---- arguments ----------------------------------------------------------------------------------------------

    def page(self) -> str:
        rnd = self.random
        roll = rnd.random()
        if roll < 0.03:
            return f"{rnd.randrange(NR_PAGES)}~{rnd.choice((1, 8, 2048, 4095))}"
        if self.used and roll < 0.85:
            return str(max(0, rnd.choice(self.used) + rnd.choice((0, 0, 0, 0, 1, -1))))
        return str(rnd.randrange(NR_PAGES))

    def length(self) -> str:
        rnd = self.random
        roll = rnd.random()
        if roll < 0.03:
            return "0"
        if roll < 0.05:
            return rnd.choice(("~0xfffffffffffff000", "~0x7ffffffff000", "~1", "1~1", "3~4095"))
        return str(rnd.choice((1, 1, 1, 2, 2, 3, 4, 5, 8)))

    def map(self) -> str:
        rnd = self.random
        start, nr_pages = rnd.randrange(NR_PAGES), rnd.choice((1, 1, 1, 2, 3, 4, 6, 8))
        if self.used and rnd.random() < 0.5:
            start = max(0, rnd.choice(self.used) + rnd.choice((1, 1, -1, 0, 2)))
        self.used += range(start, start + nr_pages)
        where = str(start) if rnd.random() > 0.02 else f"{start}~{rnd.choice((1, 512))}"
        op = f"m:{where}:{nr_pages}:{rnd.choice(_PROTS)}"
        roll = rnd.random()
        if roll < 0.70:
            return op
        if roll < 0.80:
            return f"{op}:{rnd.choice(('N', 'P', 'L', 'K', 'B', 'NP', 'S', 'SN', 'SP', 'V', 'E', 'E', 'H', 'G'))}"
        if roll < 0.97:
            return f"{op}:{rnd.choice(('F', 'F', 'SF', 'FP', 'FE'))}:{rnd.randrange(8)}"
        return f"{op}:{rnd.choice(('0x32', '0x10', '0x13', '0x30', '0x100032', '0x33', '0x31', '0x22', '0x20'))}"

    def protect(self) -> str:
        rnd = self.random
        prot = rnd.choice(_PROTS)
        if rnd.random() < 0.04:
            prot = rnd.choice(("rG", "rwG", "rU", "0x10", "0x3000000", "rwGU"))
        return f"p:{self.page()}:{self.length()}:{prot}"

    def lock(self) -> str:
        rnd = self.random
        roll = rnd.randrange(10)
        if roll < 5:
            return f"l:{self.page()}:{self.length()}" + rnd.choice(("", "", ":O"))
        if roll < 9:
            return f"k:{self.page()}:{self.length()}"
        return rnd.choice(("K", "L:C", "L:F", "L:CF", "L:CO", "L:O", "L:8"))

    def remap(self) -> str:
        rnd = self.random
        flags = rnd.choice(_REMAP_FLAGS)
        old = rnd.choice((1, 1, 1, 2, 2, 3, 4, 5))
        new = old if rnd.random() < 0.55 else rnd.choice((1, 2, 3, 4, 6, 8))
        lengths = [str(old), str(new)]
        if rnd.random() < 0.05:
            lengths[rnd.randrange(2)] = rnd.choice(("0", "~1", "2~5", "~0xffffffffffff0000", "~0x7ffffffff000"))
        op = f"v:{self.page()}:{lengths[0]}:{lengths[1]}:{flags}"
        if "F" in flags or "D" in flags or flags == "9":
            target = rnd.randrange(NR_PAGES) if rnd.random() < 0.7 else rnd.choice((0, *self.used))
            self.used += range(target, target + min(new, 4))
            odd = "~8" if rnd.random() < 0.02 else ""
            op += f":{target}{odd}" if rnd.random() > 0.02 else ":~0x7ffffffff000"
        return op


def make_script(seed: int) -> list[str]:
    """The script of number ``seed``."""
    return Generator(seed).script()
