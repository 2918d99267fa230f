"""Ways to damage a file, drawn at random: what disks, downloads, editors and other programs do to them."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mangle = Callable[[bytes, random.Random], bytes]


def flip_bit(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def cut_end(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def cut_last_bytes(data: bytes, draw: random.Random) -> bytes:
    return data[: -draw.randrange(1, 9)]


def drop_piece(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, 200) :]


def double_piece(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    piece = data[start : start + draw.randrange(1, 200)]
    return data[:start] + piece + data[start:]


def zero_piece(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    piece = data[start : start + draw.randrange(1, 600)]
    return data[:start] + bytes(len(piece)) + data[start + len(piece) :]


def swap_pieces(data: bytes, draw: random.Random) -> bytes:
    one, two = sorted(draw.sample(range(len(data) + 1), 2))
    return data[:one] + data[two:] + data[one:two]


def append_bytes(data: bytes, draw: random.Random) -> bytes:
    return data + draw.randbytes(draw.randrange(1, 60))


def noise(data: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(min(len(data), 4000))


def other_line_ends(data: bytes, draw: random.Random) -> bytes:
    return data.replace(b"\n", draw.choice([b"\r\n", b"\r", b"\n\n"]))


def other_encoding(data: bytes, draw: random.Random) -> bytes:
    return data.decode("utf-8", "replace").encode(draw.choice(["utf-16", "utf-8-sig", "utf-32"]))


def constant(content: bytes) -> Mangle:
    return lambda data, draw: content


ANY: dict[str, Mangle] = {
    mangle.__name__.replace("_", " "): mangle
    for mangle in (
        flip_bit,
        cut_end,
        cut_last_bytes,
        drop_piece,
        double_piece,
        zero_piece,
        swap_pieces,
        append_bytes,
        noise,
        other_line_ends,
        other_encoding,
    )
} | {
    "empty": constant(b""),
    "zeros": constant(bytes(500)),
    "deep lists": constant(b"[" * 100_000),
    "deep objects": constant(b'{"a":' * 100_000),
    "null": constant(b"null"),
    "list": constant(b"[1, 2]"),
    "text": constant(b"some text of somebody else\n"),
}

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e400, 10**30, float("nan"), "", "x", [], [[]], {}, {"a": 1}, [1, "a"], "../../etc/passwd",
)  # fmt: skip


def change_json(data: bytes, draw: random.Random) -> bytes:
    """Change one value, name or entry somewhere in a JSON object, and make its digest right again."""
    value = json.loads(data)
    parents = [node for node in _nodes(value) if node]
    node = draw.choice(parents)
    key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
    how = draw.random()
    if how < 0.3:
        del node[key]
    elif how < 0.4 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = draw.choice(ODD_VALUES)
    if isinstance(value, dict) and "content_sha256" in value:
        from ragscale._files._json import _content_digest
        from ragscale.errors import CheckpointError

        del value["content_sha256"]
        value["content_sha256"] = _content_digest(value, "", CheckpointError)
    return json.dumps(value).encode()


def _nodes(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value] + [node for item in value.values() for node in _nodes(item)]
    if isinstance(value, list):
        return [value] + [node for item in value[:50] for node in _nodes(item)]
    return []


def mangle_file(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Damage a file; returns how, and whether it was changed on purpose so that no digest can tell."""
    data = path.read_bytes()
    if draw.random() < 0.04:
        path.unlink()
        return "no file", False
    if path.suffix == ".json" and draw.random() < 0.4:
        path.write_bytes(change_json(data, draw))
        return "change json", True
    name = draw.choice(list(ANY))
    path.write_bytes(ANY[name](data, draw) if data else b"?")
    return name, False


def seed_of(*parts: Any) -> random.Random:
    """Return a generator that depends on these values alone."""
    return random.Random(zlib.crc32(repr(parts).encode()))
