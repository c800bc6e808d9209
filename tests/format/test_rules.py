"""Each rule of the container is broken once, and the reader names it."""

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785

import hellods
from hellods.errors import DigestError, FormatError, HelloError, UnsupportedError
from hellods.format.archive import Archive

from .forge import HEADER, PIXELS, SECTIONS, SIDE, compress, forge, images, seal, section, stream

SPEC = Path(__file__).parents[2] / "spec" / "hello-0.9.md"
Broken = Callable[[], bytes]
VALID = forge()


def head(**values: Any) -> Broken:
    return lambda: forge(lambda header: header.update(values))


def pictures(**values: Any) -> Broken:
    return lambda: forge(lambda header: header["images"].update(values))


def part(name: str, **values: Any) -> Broken:
    return lambda: forge(lambda header: section(header, name).update(values))


def content(**sections: bytes | None) -> Broken:
    return lambda: forge(sections={name.replace("__", "."): raw for name, raw in sections.items()})


def spelled(spell: Callable[[Any], bytes]) -> Broken:
    return lambda: forge(spell=spell)


def first_image(one: bytes) -> Broken:
    return lambda: forge(sections=images([one, *(stream(pixels) for pixels in PIXELS[1:])]))


def scaled() -> bytes:
    """A file of AVIF images the first of which has a frame twice as wide and as high as the image that it is."""
    small, large = (stream(np.zeros((side, side, 3), np.uint8), "avif") for side in (SIDE, 2 * SIDE))
    sides = (struct.pack(">II", side, side) for side in (2 * SIDE, SIDE))
    return forge(
        lambda header: header["images"].update(codec="avif"),
        sections=images([large.replace(*(b"ispe\0\0\0\0" + side for side in sides)), small, small]),
    )


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def nested(depth: int) -> dict[str, Any]:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return {"deep": value}


def anew(name: str, **values: Any) -> Broken:
    extra = {"name": name, "length": 0, "raw_length": 0, "encoding": "identity", "sha256": "0" * 64, "critical": False}
    return lambda: forge(lambda header: header["sections"].append({**extra, **values}))


def towering(header: dict[str, Any]) -> None:
    header["projector"]["tower"] = {}


def bare(header: dict[str, Any]) -> None:
    header["projector"] = None


def large(header: dict[str, Any]) -> None:
    towering(header)
    section(header, "backbone").update(length=(128 << 20) + 1, raw_length=(128 << 20) + 1)


def tensors(entries: dict[str, tuple[str, list[int], list[int]]], length: int) -> bytes:
    """A safetensors file of so many bytes of data."""
    header = {name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in entries.items()}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(length)


def deep(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    facts = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", facts) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


TENSORS = tensors({}, 0)
FRAME = compress(SECTIONS["projector"])
BROKEN: list[tuple[str, str, Broken]] = [
    ("H1", "empty", lambda: b""),
    ("H1", "another format", lambda: b"PK\3\4" + bytes(100)),
    ("H1", "converted line ends", lambda: VALID.replace(b"\r\n", b"\n", 1)),
    ("H2", "a newer major", lambda: forge(major=1)),
    ("H3", "zero", lambda: forge(header_length=0)),
    ("H3", "no multiple of 64", lambda: forge(header_length=100)),
    ("H3", "above the limit", lambda: forge(header_length=(1 << 20) + 64)),
    ("H4", "shorter than a prologue", lambda: VALID[:20]),
    ("H4", "truncated", lambda: VALID[:-64]),
    ("H4", "extended", lambda: VALID + bytes(64)),
    ("H4", "header_length beyond the end", lambda: forge(header_length=1 << 20)),
    ("H5", "a byte of the header", lambda: flipped(VALID, 100)),
    ("H5", "a byte of the digest", lambda: flipped(VALID, 24)),
    ("H6", "the last byte", lambda: forge(reserved=bytes(7) + b"\1")),
    ("H7", "no JSON", spelled(lambda header: b"{")),
    ("H7", "not UTF-8", spelled(lambda header: b'{"a":"\xff"}')),
    ("H7", "white space", spelled(lambda header: json.dumps(header, sort_keys=True).encode())),
    ("H7", "unsorted", spelled(lambda header: b'{"b":0,"a":0}')),
    ("H7", "escaped for nothing", spelled(lambda header: b'{"a":"\\u0041"}')),
    ("H7", "a key twice", spelled(lambda header: b'{"a":0,"a":0}')),
    ("H7", "a key that is not ASCII", spelled(lambda header: '{"ä":0}'.encode())),
    ("H7", "a float", spelled(lambda header: b'{"a":0.5}')),
    ("H7", "an exponent", spelled(lambda header: b'{"a":1e5}')),
    ("H7", "NaN", spelled(lambda header: b'{"a":NaN}')),
    ("H7", "Infinity", spelled(lambda header: b'{"a":-Infinity}')),
    ("H7", "minus zero", spelled(lambda header: b'{"a":-0}')),
    ("H7", "54 bits", spelled(lambda header: b'{"a":9007199254740992}')),
    ("H7", "5,000 digits", spelled(lambda header: b'{"a":' + b"1" * 5000 + b"}")),
    ("H7", "half a surrogate pair", spelled(lambda header: b'{"a":"\\ud800"}')),
    ("H7", "33 deep", head(source=nested(31))),
    ("H7", "200,000 deep", spelled(lambda header: b"[" * 200_000)),
    ("H7", "64 more spaces", spelled(lambda header: rfc8785.dumps(header) + b" " * 64)),
    ("H7", "padded with zeros", lambda: seal(rfc8785.dumps(HEADER).ljust(1280, b"\0"), b"")),
    ("H8", "another minor", head(format="hello/0.8")),
    ("H8", "another major", head(format="hello/1.0")),
    ("H8", "another word", head(format="hullo/0.9")),
    ("H8", "a leading zero", head(format="hello/0.09")),
    ("H8", "a number", head(format=9)),
    ("H8", "no object", spelled(lambda header: b"[]")),
    ("H9", "an unknown key", head(color="red")),
    ("H9", "an unknown key of images", pictures(depth=8)),
    ("H9", "a missing key", lambda: forge(lambda header: header.pop("created_by"))),
    ("H9", "a bool for a number", pictures(count=True)),
    ("H9", "a number for a text", head(name=0)),
    ("H9", "a text for a bool", part("images", critical="true")),
    ("H9", "null", head(views=None)),
    ("H9", "an unknown codec", pictures(codec="gif")),
    ("H9", "an unknown encoding", part("card", encoding="gzip")),
    ("H9", "a number with an exponent", pictures(std=["1e3", "1", "1"])),
    ("H9", "a decimal of minus zero", pictures(mean=["-0", "0", "0"])),
    ("H9", "a decimal with a needless zero", pictures(std=["0.50", "1", "1"])),
    ("H9", "a decimal that begins with a point", pictures(std=[".5", "1", "1"])),
    ("H10", "twice", anew("card")),
    ("H10", "a path", anew("../card")),
    ("H10", "no name", anew("")),
    ("H10", "65", lambda: forge(sections={f"x-{i}": b"" for i in range(60)})),
    ("H11", "below zero", part("card", length=-1, raw_length=-1)),
    ("H11", "other lengths without compression", part("card", raw_length=8)),
    ("H11", "a short digest", part("card", sha256="00")),
    ("H11", "a digest in capitals", part("card", sha256="A" * 64)),
    ("H12", "no images", content(images=None)),
    ("H12", "no index", content(images__index=None)),
    ("H12", "no targets", content(targets=None)),
    ("H12", "no projector for its facts", content(projector=None)),
    ("H12", "a projector without facts", lambda: forge(bare)),
    ("H12", "a probe without a projector", lambda: forge(bare, sections={"projector": None, "probe": TENSORS})),
    ("H12", "images not critical", part("images", critical=False)),
    ("H12", "a critical card", part("card", critical=True)),
    ("H12", "no backbone for a tower", head(projector={"tower": {}})),
    ("H12", "a backbone without its tower", content(backbone=SECTIONS["projector"])),
    ("H12", "a backbone without a projector", lambda: forge(bare, sections={"backbone": SECTIONS["projector"]})),
    ("H12", "compressed images", part("images", encoding="zstd", raw_length=1000)),
    ("H13", "unknown and critical", anew("x-needed", critical=True)),
    ("H14", "a section more than bytes", anew("x-more", length=1, raw_length=1)),
    ("H14", "bytes after the last section", lambda: forge(file_length=len(VALID) + 64) + bytes(64)),
    ("H15", "ones", lambda: forge(pad=b"\1")),
    ("H16", "another digest", part("targets", sha256="0" * 64)),
    ("H16", "a byte of a section", lambda: VALID.replace(b"# Three", b"# Throe")),
    ("H17", "no image", pictures(count=0)),
    ("H17", "too many images", pictures(count=(1 << 24) + 1)),
    ("H17", "no height", pictures(height=0)),
    ("H17", "a wide image", pictures(width=4097)),
    ("H17", "too many pixels", pictures(count=1 << 10, height=4096, width=4096)),
    ("H18", "two channels", pictures(mean=["0.5", "0.5"])),
    ("H18", "no std", pictures(std=[])),
    ("H18", "std of zero", pictures(std=["0", "1", "1"])),
    ("H18", "std that float32 cannot divide by", pictures(std=["1", "0.0000001", "1"])),
    ("H18", "mean beyond float32", pictures(mean=["0.5", "-1000001", "0.5"])),
    ("H19", "none", head(classes=[])),
    ("H19", "no name", head(classes=["cat", ""])),
    ("H19", "twice", head(classes=["cat", "cat"])),
    ("H20", "another count", pictures(count=4)),
    ("H20", "other lengths", content(images__index=struct.pack("<6I", *[0] * 6))),
    ("H21", "another sum", content(images__index=flipped(SECTIONS["images.index"], 4))),
    ("H22", "another count", content(targets=bytes(8))),
    ("H22", "a class too many", content(targets=struct.pack("<3I", 0, 1, 2))),
    ("C1", "above 1 GiB", part("projector", raw_length=(1 << 30) + 1)),
    ("C1", "more than 200 times", lambda: forge(sections={"projector": bytes(2 << 20)})),
    ("C1", "no gain", part("card", encoding="zstd")),
    ("C2", "another length", part("projector", raw_length=len(SECTIONS["projector"]) - 1)),
    ("C2", "no frame", lambda: forge(stored={"projector": bytes(64)})),
    ("C2", "a truncated frame", lambda: forge(stored={"projector": FRAME[:-1]})),
    ("C2", "a byte after the frame", lambda: forge(stored={"projector": FRAME + b"\0"})),
    ("C2", "two frames", lambda: forge(stored={"projector": FRAME + compress(b"")})),
    (
        "C2",
        "an undeclared length",
        lambda: forge(stored={"projector": compress(SECTIONS["projector"], write_content_size=False)}),
    ),
    ("C3", "another codec", first_image(stream(PIXELS[0], "webp"))),
    ("C3", "another size", first_image(stream(PIXELS[0][:4]))),
    ("C3", "gray", first_image(stream(PIXELS[0, ..., 0]))),
    ("C3", "16 bits a channel", first_image(deep(PIXELS[0]))),
    ("C3", "truncated", first_image(stream(PIXELS[0])[:-20])),
    ("C3", "empty", first_image(b"")),
    ("C3", "a larger frame", scaled),
    ("C4", "not safetensors", content(probe=b"tensors" * 10)),
    ("C4", "a backbone that is not safetensors", lambda: forge(towering, sections={"backbone": b"tensors" * 10})),
    ("C4", "a hole in the data", content(probe=tensors({"a": ("U8", [1], [0, 1]), "b": ("U8", [1], [2, 3])}, 3))),
    ("C4", "an overlap in the data", content(probe=tensors({"a": ("U8", [2], [0, 2]), "b": ("U8", [2], [1, 3])}, 3))),
    ("C4", "bytes after the data", content(probe=tensors({"a": ("U8", [1], [0, 1])}, 2))),
    ("C4", "an unknown type", content(probe=tensors({"a": ("F8", [1], [0, 1])}, 1))),
    ("C4", "another shape", content(probe=tensors({"a": ("U8", [2], [0, 1])}, 1))),
    ("C4", "a side below zero", content(probe=tensors({"a": ("U8", [-1, -1], [0, 1])}, 1))),
    ("C4", "a shape that overflows", content(probe=tensors({"a": ("U8", [0, 1 << 40, 1 << 40], [0, 0])}, 0))),
    ("C4", "nine dimensions", content(probe=tensors({"a": ("U8", [1] * 9, [0, 1])}, 1))),
    ("C5", "not UTF-8", content(card=b"\xff")),
    ("C6", "a large backbone", lambda: forge(large, sections={"backbone": SECTIONS["projector"]})),
]
KINDS = {"H2": UnsupportedError, "H13": UnsupportedError, "H5": DigestError, "H16": DigestError, "H21": DigestError}


@pytest.mark.parametrize(("rule", "broken"), [pytest.param(r, b, id=f"{r}-{what}") for r, what, b in BROKEN])
def test_broken_rule_is_named_after_the_file_in_one_line(rule: str, broken: Broken) -> None:
    with pytest.raises(KINDS.get(rule, FormatError), match=rf"^archive: .* \[{rule}\]$"):
        Archive.open(io.BytesIO(broken())).verify()


def test_archive_of_the_forge_is_valid() -> None:
    archive = Archive.open(io.BytesIO(VALID))
    archive.verify()
    assert np.array_equal(archive.pixels(), PIXELS)
    assert archive.targets().tolist() == [0, 1, 0]


def test_unknown_ancillary_section_is_skipped() -> None:
    archive = Archive.open(io.BytesIO(forge(sections={"x-notes": b"mine"})))
    archive.verify()
    assert archive.read("x-notes") == b"mine"


def test_newer_minor_with_unknown_keys_is_read() -> None:
    data = forge(lambda header: header.update(format="hello/0.10", color="red"), minor=10)
    assert Archive.open(io.BytesIO(data)).header.extra == {"color": "red"}


def test_newer_major_says_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="install a newer hellods"):
        Archive.open(io.BytesIO(forge(major=1)))


def test_missing_section_is_named() -> None:
    with pytest.raises(FormatError, match=r"has no section 'probe' \[H12\]"):
        Archive.open(io.BytesIO(VALID)).read("probe")


def test_file_that_shrinks_while_open_is_refused() -> None:
    file = io.BytesIO(VALID)
    archive = Archive.open(file)
    file.truncate(len(VALID) - 100)
    with pytest.raises(HelloError, match=r"\[H4\]"):
        archive.verify()


def test_every_rule_has_a_message_and_a_test() -> None:
    package = Path(hellods.__file__).parent
    rules = re.findall(r"^- \*\*([HC]\d+)\*\* ", SPEC.read_text(encoding="utf-8"), re.MULTILINE)
    cited = set(re.findall(r"\[([HC]\d+)\]", "".join(path.read_text() for path in package.rglob("*.py"))))
    assert rules == [f"H{i}" for i in range(1, 24)] + [f"C{i}" for i in range(1, 10)]
    assert cited == set(rules)
    assert {rule for rule, _, _ in BROKEN} == set(rules) - {"H23", "C7", "C8", "C9"}  # which need torch
