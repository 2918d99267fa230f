"""Open files of text, plain or compressed; one that cannot be read to its end is never taken for a short one."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from ragscale._extras import require
from ragscale._files import disk_errors
from ragscale.errors import RagscaleError, SplitError

MAX_LINE_BYTES = 1 << 27
BOM = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_COMPRESSED_BYTES = 1 << 11  # of Zstandard at a time: so many can unfold to 64 MB, not more
_SKIPPED_BYTES = 1 << 20


class LineTooLong(Exception):
    """A line has more bytes than are read of one."""


@contextmanager
def open_binary(path: str | os.PathLike[str]) -> Generator[IO[bytes]]:
    """Open a file for reading bytes, decompressing ``.gz`` and ``.zst``.

    Raises
    ------
    SplitError
        When the file cannot be opened, or, while it is read in the block, turns out to be damaged or cut short; the
        message names it.
    """
    name = os.fspath(path)
    with _damage(name), contextlib.ExitStack() as stack:
        if name.endswith((".gz", ".zst")) and os.path.getsize(name) == 0:
            raise SplitError(f"{name} is empty, not even a compressed file: copy or download it again")
        if name.endswith(".gz"):
            yield cast(Any, stack.enter_context(gzip.open(name, "rb")))
        elif name.endswith(".zst"):
            raw = stack.enter_context(open(name, "rb"))
            yield io.BufferedReader(_Zstandard(raw), 1 << 20)
        else:
            yield stack.enter_context(open(name, "rb"))


def read_lines(
    path: str | os.PathLike[str], max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, bytes | LineTooLong]]:
    """Yield (number, line) of a text file without its byte order mark; a line that is too long is said, not read.

    Raises
    ------
    SplitError
        When the file cannot be read to its end, or is not UTF-8 by its byte order mark.
    """
    with open_binary(path) as file:
        number = 0
        while line := file.readline(max_line_bytes + 1):
            number += 1
            if number == 1:
                line = _without_mark(line, os.fspath(path))
            if len(line) <= max_line_bytes or line.endswith(b"\n"):
                yield number, line
                continue
            size = len(line)
            while not line.endswith(b"\n") and (line := file.readline(_SKIPPED_BYTES)):
                size += len(line)
            yield number, LineTooLong(f"the line has {size:,} bytes, at most {max_line_bytes:,} are read")


def _without_mark(line: bytes, name: str) -> bytes:
    for mark, encoding in _OTHER_ENCODINGS.items():
        if line.startswith(mark):
            raise SplitError(f"{name} is encoded as {encoding}, by its byte order mark: convert it to UTF-8")
    return line.removeprefix(BOM)


@contextmanager
def _damage(name: str) -> Generator[None]:
    try:
        with disk_errors(name, "read", error=SplitError):
            yield
    except RagscaleError:
        raise
    except EOFError as error:
        raise SplitError(f"{name} is cut short, it ends in the middle ({error}): copy or download it again") from error
    except Exception as error:
        # zlib.error and ZstdError share no base class
        if type(error).__module__ == "zlib" or type(error).__name__ in ("error", "ZstdError"):
            raise SplitError(f"{name} is damaged ({error}): copy or download it again") from error
        raise


class _Zstandard(io.RawIOBase):
    """Decompress frame after frame; the end of the file inside a frame is an error, unlike in zstandard's reader."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decompressor = require("zstandard", "split").ZstdDecompressor(max_window_size=2**31)
        self._frame: Any = None
        self._compressed, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._compressed or self._file.read(_COMPRESSED_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("the last Zstandard frame is not complete")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
            self._compressed = b""
            if self._frame.eof:
                self._compressed, self._frame = self._frame.unused_data, None
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n
