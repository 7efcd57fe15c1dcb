"""Records as JSON lines: a header, the records, an end; one object a line.  ``schema/trace-1.json`` describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class JsonLinesSink:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def header(self, record: Mapping[str, Any]) -> None:
        self.write(record)

    def write(self, record: Mapping[str, Any]) -> None:
        self._stream.write(_encode(record).encode("utf-8", "replace") + b"\n")

    def end(self, record: Mapping[str, Any]) -> None:
        self.write(record)
        self._stream.flush()
