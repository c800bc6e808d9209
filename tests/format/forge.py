"""Archives put together by hand, right or wrong, without the code under test."""

import copy
import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import rfc8785
import safetensors.numpy
import zstandard
from PIL import Image

SIDE = 8
PIXELS = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)


def stream(pixels: np.ndarray[Any, Any], codec: str = "png", **options: Any) -> bytes:
    """One image as Pillow writes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, codec, **options)
    return buffer.getvalue()


def images(streams: Sequence[bytes]) -> dict[str, bytes]:
    """The sections of some streams."""
    index = b"".join(struct.pack("<II", len(one), zlib.crc32(one)) for one in streams)
    return {"images": b"".join(streams), "images.index": index}


HEADER: dict[str, Any] = {
    "format": "hello/0.9",
    "name": "three",
    "license": "CC0-1.0",
    "created_by": "forge",
    "source": {"name": "noise", "count": 3, "nested": [{"deep": True}, None]},
    "classes": ["cat", "dög"],
    "images": {
        "count": 3,
        "codec": "png",
        "height": SIDE,
        "width": SIDE,
        "mean": ["0.5", "0.5", "0.5"],
        "std": ["0.25", "0.25", "0.25"],
    },
    "views": {"size": 8, "scale": ["0.08", "1"]},
    "projector": {
        "base": "given:none",
        "base_sha256": "0" * 64,
        "quick_gelu": False,
        "preprocess": {"side": 8, "mean": ["0.5", "0.5", "0.5"], "std": ["0.25", "0.25", "0.25"]},
        "template": "a {}",
        "descriptions": ["cat", "dog"],
        "encoder_rank": 1,
        "head_rank": 1,
    },
    "teacher": {"accuracy": "0.9"},
    "recipe": {"seed": 0},
    "metrics": {},
}
SECTIONS: dict[str, bytes] = {
    **images([stream(one) for one in PIXELS]),
    "targets": struct.pack("<3I", 0, 1, 0),
    "projector": safetensors.numpy.save({"factor": np.zeros((40, 4), np.float16), "head": np.ones(3, np.float32)}),
    "card": b"# Three",
}
COMPRESSED = {"projector"}


def compress(raw: bytes, level: int = 3, **options: Any) -> bytes:
    """A zstd frame."""
    return zstandard.ZstdCompressor(level=level, **options).compress(raw)


def frame(declared: int, blocks: int, single: bool) -> bytes:
    """A zstd frame of blocks of 128 KiB in four bytes each, which declares another length; with a window or without."""
    start = b"\x28\xb5\x2f\xfd" + (b"\xa0" if single else b"\x80\x38") + struct.pack("<I", declared)
    block, last = (struct.pack("<I", (1 << 17) << 3 | 2 | end)[:3] + b"A" for end in (0, 1))
    return start + block * (blocks - 1) + last


def entry(name: str, stored: bytes, raw: bytes) -> dict[str, Any]:
    """The entry of a section in the header."""
    return {
        "name": name,
        "length": len(stored),
        "raw_length": len(raw),
        "encoding": "identity" if stored is raw else "zstd",
        "sha256": hashlib.sha256(stored).hexdigest(),
        "critical": name in ("images", "images.index", "targets", "projector", "backbone"),
    }


def forge(
    edit: Callable[[dict[str, Any]], object] = lambda header: None,
    *,
    sections: Mapping[str, bytes | None] | None = None,
    stored: Mapping[str, bytes] | None = None,
    spell: Callable[[Any], bytes] = rfc8785.dumps,
    pad: bytes = b"\0",
    **prologue: Any,
) -> bytes:
    """The bytes of an archive: valid, but for what is asked.

    Args:
        edit: changes the header just before it is spelled and sealed.
        sections: contents that replace those of SECTIONS; None leaves one out.
        stored: bytes of a section in the file, in the place of its compressed content.
        spell: writes the header.
        pad: fills the sections up to 64 bytes.
        prologue: values that replace the right ones.
    """
    header = copy.deepcopy(HEADER)
    header["sections"] = []
    body = b""
    for name, raw in {**SECTIONS, **(sections or {})}.items():
        if raw is None:
            continue
        kept = (stored or {}).get(name, compress(raw) if name in COMPRESSED else raw)
        header["sections"].append(entry(name, kept, raw))
        body += kept + pad * (-len(kept) % 64)
    edit(header)
    return seal(spell(header), body, **prologue)


def seal(header: bytes, body: bytes, **prologue: Any) -> bytes:
    """Header and sections under a prologue that fits them, but for what is asked."""
    header += b" " * (-len(header) % 64)
    values = {
        "signature": b"\x89HELLO\r\n",
        "major": 0,
        "minor": 9,
        "header_length": len(header),
        "file_length": 64 + len(header) + len(body),
        "digest": hashlib.sha256(header).digest(),
        "reserved": bytes(8),
        **prologue,
    }
    return struct.pack("<8sHHIQ32s8s", *values.values()) + header + body


def section(header: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a section."""
    found: dict[str, Any] = next(one for one in header["sections"] if one["name"] == name)
    return found
