"""What an archive says of itself: frozen values, read from canonical JSON and written to it."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from hellods.errors import FormatError, UnsupportedError
from hellods.format import canonical, wire
from hellods.record import from_json, to_json

Codec = Literal["png", "jpeg", "webp", "avif"]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One run of bytes in the file. Its offset follows from the lengths before it, and is stored nowhere."""

    name: str
    length: int  # bytes in the file, without padding
    raw_length: int  # bytes when decompressed
    encoding: Literal["identity", "zstd"]
    sha256: str  # of the bytes in the file
    critical: bool  # a reader that does not know the name must refuse the file
    extra: dict[str, Any] = field(default_factory=dict)  # keys of others, and of later versions


@dataclass(frozen=True, kw_only=True)
class Images:
    """What all images have in common; they are RGB with 8 bits a channel."""

    count: int
    codec: Codec
    height: int
    width: int
    mean: tuple[float, ...]  # of the three channels in 0..1, for the student's input
    std: tuple[float, ...]
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The header. Its free objects are read by the folders that own them."""

    format: str = f"hello/{wire.MAJOR}.{wire.MINOR}"
    name: str
    license: str = "NOASSERTION"  # an SPDX expression
    created_by: str
    source: dict[str, Any]  # the real data: name, version, URL, digest, license, size
    classes: tuple[str, ...]
    images: Images
    views: dict[str, Any]  # the augmentation that labels are exact for
    projector: dict[str, Any] | None  # the label maker
    teacher: dict[str, Any]
    recipe: dict[str, Any]
    metrics: dict[str, Any]  # the author's claims
    sections: tuple[Section, ...] = ()  # filled in by `write`
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def newer(self) -> bool:
        """Whether the file is of a later version than this reader, which then ignores keys that it does not know."""
        return self.version > (wire.MAJOR, wire.MINOR)

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the file."""
        major, minor = self.format.removeprefix("hello/").split(".")
        return int(major), int(minor)


def parse(data: bytes, source: str) -> Header:
    """Return the header that `data` spells, with every rule of a header checked.

    Args:
        data: the bytes of the header, padding included.
        source: names the file in messages.

    Raises:
        FormatError: a rule is broken.
        UnsupportedError: a critical section that this version does not know.
    """
    value = _loads(data, source)
    text = value.get("format") if isinstance(value, dict) else None
    match = re.fullmatch(wire.FORMAT, text) if isinstance(text, str) else None
    if match is None:
        raise FormatError(f"{source}: header.format is {text!a:.40}, expected 'hello/MAJOR.MINOR' [H8]")
    newer = (int(match[1]), int(match[2])) > (wire.MAJOR, wire.MINOR)
    header = from_json(
        Header, value, f"{source}: header", lenient=newer, error=lambda text: FormatError(f"{text} [H9]")
    )
    for fault in _faults(header):
        raise FormatError(f"{source}: {fault}")
    for section in header.sections:
        if section.critical and section.name not in wire.KNOWN:
            raise UnsupportedError(
                f"{source}: section {section.name!a} is needed and unknown here: install a newer hellods [H13]"
            )
    return header


def emit(header: Header) -> bytes:
    """Return the bytes of `header` as a file holds them, padding included; equal headers give equal bytes.

    Raises:
        FormatError: a value that canonical JSON has no spelling for, or a header above the limit.
    """
    value = to_json(header)
    try:
        data = canonical.dumps(value)
        if canonical.loads(data) != value:
            raise ValueError("a key is not a string")
    except ValueError as cause:
        raise FormatError(f"header: {cause} [H7]") from cause
    data += b" " * (-len(data) % wire.ALIGNMENT)
    if len(data) > wire.MAX_HEADER:
        raise FormatError(f"header of {len(data)} bytes, the limit is {wire.MAX_HEADER} [H3]")
    return data


def _loads(data: bytes, source: str) -> Any:
    text = data.rstrip(b" ")
    try:
        value = canonical.loads(text)
    except ValueError as cause:
        raise FormatError(f"{source}: the header is not JSON as it must be: {cause} [H7]") from cause
    if canonical.dumps(value) + b" " * (-len(text) % wire.ALIGNMENT) != data:
        raise FormatError(f"{source}: the header is not spelled canonically [H7]")
    return value


def _faults(header: Header) -> Iterator[str]:
    names = [section.name for section in header.sections]
    if len(names) > wire.MAX_SECTIONS:
        yield f"{len(names)} sections, the limit is {wire.MAX_SECTIONS} [H10]"
    if len(set(names)) < len(names):
        yield f"section {Counter(names).most_common(1)[0][0]!a} appears twice [H10]"
    for section in header.sections:
        for fault in _section_faults(section):
            yield f"section {section.name!a:.80}: {fault}"
    for name in wire.REQUIRED:
        if name not in names:
            yield f"section {name!r} is missing [H12]"
    if (header.projector is not None) != ("projector" in names):
        yield f"section 'projector' {'has no facts' if header.projector is None else 'is missing'} [H12]"
    if header.projector is None and "probe" in names:
        yield "section 'probe' has no projector [H12]"
    described = header.projector is not None and header.projector.get("tower") is not None
    if described != ("backbone" in names):
        yield f"section 'backbone' {'is missing' if described else 'has no projector.tower'} [H12]"
    yield from _image_faults(header.images)
    lengths = {section.name: section.raw_length for section in header.sections}
    if lengths["images.index"] != 8 * header.images.count:
        yield f"images.index of {lengths['images.index']} bytes, {header.images.count} images need 8 each [H20]"
    if lengths["targets"] != 4 * header.images.count:
        yield f"targets of {lengths['targets']} bytes, {header.images.count} images need 4 each [H22]"
    if not header.classes or "" in header.classes:
        yield "no classes, or one without a name [H19]"
    if len(set(header.classes)) < len(header.classes):
        yield f"class {Counter(header.classes).most_common(1)[0][0]!a:.80} appears twice [H19]"


def _section_faults(section: Section) -> Iterator[str]:
    if not re.fullmatch(wire.SECTION_NAME, section.name):
        yield f"a name matches {wire.SECTION_NAME} [H10]"
    if min(section.length, section.raw_length) < 0:
        yield "a length below zero [H11]"
    if not re.fullmatch(wire.SHA256, section.sha256):
        yield "sha256 is not 64 lower-case hexadecimal digits [H11]"
    if section.encoding == "identity" and section.raw_length != section.length:
        yield f"length {section.length} and raw_length {section.raw_length} differ without compression [H11]"
    if section.name in wire.KNOWN and section.critical != (section.name not in wire.ANCILLARY):
        yield f"critical is {section.critical}, expected {not section.critical} [H12]"
    if section.name in wire.IDENTITY and section.encoding != "identity":
        yield f"encoding is {section.encoding!r}, expected 'identity' [H12]"
    if section.encoding == "zstd" and not section.length < section.raw_length <= most_raw(section.length):
        most = most_raw(section.length)
        yield f"{section.length} bytes of zstd for {section.raw_length}, expected more than that up to {most} [C1]"
    if section.name == "backbone" and section.raw_length > wire.MAX_BACKBONE:
        yield f"{section.raw_length} bytes, the limit is {wire.MAX_BACKBONE} [C6]"


def most_raw(length: int) -> int:
    """Return how many bytes a zstd section of `length` bytes may hold."""
    return min(wire.MAX_RAW, max(wire.FREE_RAW, wire.MAX_RATIO * length))


def _image_faults(images: Images) -> Iterator[str]:
    if not 1 <= images.count <= wire.MAX_IMAGES:
        yield f"{images.count} images, from 1 to {wire.MAX_IMAGES} are allowed [H17]"
    if not (1 <= images.height <= wire.MAX_SIDE and 1 <= images.width <= wire.MAX_SIDE):
        yield f"images of {images.height}x{images.width}, sides from 1 to {wire.MAX_SIDE} are allowed [H17]"
    if images.count * images.height * images.width * 3 > wire.MAX_PIXELS:
        yield f"{images.count} images of {images.height}x{images.width} exceed {wire.MAX_PIXELS} bytes of pixels [H17]"
    (mean, most), (std, least) = (images.mean, wire.MOST_MEAN), (images.std, wire.LEAST_STD)
    if not (len(mean) == len(std) == 3 and max(map(abs, mean)) <= most and min(std) >= least):
        yield f"images.mean and images.std have three numbers each, at most {most:g} and at least {least:g} [H18]"
