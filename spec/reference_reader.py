"""Read a `.hello` file by its specification alone: a second reader, literal rather than fast.

`python reference_reader.py FILE...` prints the id and the size of each file, or the rule that it breaks. It needs the
standard library only, and so leaves C2, C3 and C7 to C9 unchecked, and what a zstd section decompresses to.
"""

import hashlib
import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

SIGNATURE: Final = b"\x89HELLO\r\n"
MAJOR, MINOR = 0, 9
MAX_HEADER: Final = 1_048_576
MAX_INTEGER: Final = 9_007_199_254_740_991
MAX_DEPTH: Final = 32
DECIMAL: Final = re.compile(r"(?!-0$)-?(0|[1-9][0-9]{0,17})(\.[0-9]{0,39}[1-9])?")
FORMAT: Final = re.compile(r"hello/(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")
MAX_SECTIONS: Final = 64
SECTION_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SHA256: Final = re.compile(r"[0-9a-f]{64}")
MAX_IMAGES, MAX_SIDE, MAX_PIXELS = 2**24, 4096, 16 * 2**30
MOST_MEAN, LEAST_STD = 1e6, 1e-6
MAX_RAW, FREE_RAW, MAX_RATIO = 2**30, 2**20, 200
DTYPES: Final = {  # with their bytes
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
MAX_RANK: Final = 8
MAX_BACKBONE: Final = 128 * 2**20

Check = Callable[[Any], bool]  # whether a value has a type
ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class RefusedError(ValueError):
    """A file breaks `rule`."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{text} [{rule}]")
        self.rule = rule


def require(holds: bool, rule: str, text: str) -> None:
    if not holds:
        raise RefusedError(rule, text)


def padded(length: int) -> int:
    return (length + 63) // 64 * 64


def read_prologue(data: bytes) -> tuple[int, int]:
    """Return the minor version and the length of the header: H1 to H6."""
    require(data.startswith(SIGNATURE), "H1", "no signature")
    require(len(data) >= 64, "H4", f"{len(data)} bytes, fewer than 64")
    major, minor, header_length, file_length = struct.unpack("<HHIQ", data[8:24])
    require(major == MAJOR, "H2", f"major version {major}")
    require(0 < header_length <= MAX_HEADER and header_length % 64 == 0, "H3", f"header of {header_length} bytes")
    require(file_length == len(data), "H4", f"{len(data)} bytes, {file_length} are named")
    require(64 + header_length <= file_length, "H4", f"header of {header_length} bytes in a file of {file_length}")
    digest = hashlib.sha256(data[64 : 64 + header_length]).digest()
    require(data[24:56] == digest, "H5", "another digest of the header")
    require(data[56:64] == bytes(8), "H6", "the last eight of the first 64 bytes are not zero")
    return minor, header_length


def parse_json(text: bytes, rule: str) -> Any:
    """Return a JSON value that is within H7, however it is spelled."""

    def parse_integer(digits: str) -> int:
        if len(digits) > len(f"-{MAX_INTEGER}") or abs(int(digits)) > MAX_INTEGER:
            raise ValueError("an integer too far from zero")
        return int(digits)

    def refuse_number(digits: str) -> None:
        raise ValueError("a number that is no integer")

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs) or not all(key.isascii() for key, _ in pairs):
            raise ValueError("a key twice, or not in ASCII")
        return dict(pairs)

    integers_only: dict[str, Any] = {"parse_float": refuse_number, "parse_constant": refuse_number}
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=make_object, parse_int=parse_integer, **integers_only
        )
    except (ValueError, RecursionError) as error:
        raise RefusedError(rule, f"JSON: {error}") from error
    check_value(value, 1, rule)
    return value


def check_value(value: Any, depth: int, rule: str) -> None:
    if isinstance(value, str):
        require(not any("\ud800" <= c <= "\udfff" for c in value), rule, "JSON: half of a surrogate pair")
    elif isinstance(value, list | dict):
        require(depth <= MAX_DEPTH, rule, f"JSON: nested more than {MAX_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            check_value(item, depth + 1, rule)


def canonical(value: Any) -> str:
    """Return the text by RFC 8785 of a value that is within H7."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(canonical(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + "".join(ESCAPES.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in value) + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def read_header(stored: bytes) -> Any:
    """Return the value of the header: H7."""
    text = stored.rstrip(b" ")
    require(len(stored) == padded(len(text)), "H7", "spaces beyond the next multiple of 64")
    value = parse_json(text, "H7")
    require(canonical(value).encode("utf-8") == text, "H7", "JSON that is not canonical")
    return value


def is_a(*kinds: type) -> Check:
    """Return whether a value is of one of these types; true and false are no integers."""
    return lambda value: type(value) in kinds


def one_of(*texts: str) -> Check:
    return lambda value: value in texts


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def is_decimal(value: Any) -> bool:
    return isinstance(value, str) and DECIMAL.fullmatch(value) is not None


def check_table(
    where: str, value: dict[str, Any], minor: int, table: dict[str, Check], optional: str = "", rule: str = "H9"
) -> None:
    """Refuse an object whose keys do not stand, but for the optional ones, with values of their types."""
    for key in table:
        require(key in value or key in optional.split(), rule, f"{where}: no key {key}")
    for key, item in value.items():
        require(key in table or key.startswith("x-") or minor > MINOR, rule, f"{where}: unknown key {key!a}")
        require(key not in table or table[key](item), rule, f"{where}: {key} is not of its type")


def check_keys(header: Any, minor: int) -> None:
    """H8 and H9."""
    name = header.get("format") if isinstance(header, dict) else None
    require(isinstance(name, str) and FORMAT.fullmatch(name) is not None, "H8", f"format {name!a}")
    require(name == f"hello/{MAJOR}.{minor}", "H8", f"format {name!a} in a file of version {MAJOR}.{minor}")
    table = dict.fromkeys(("format", "name", "license", "created_by"), is_a(str))
    table |= dict.fromkeys(("source", "images", "views", "teacher", "recipe", "metrics"), is_a(dict))
    table |= {"classes": list_of(is_a(str)), "projector": is_a(dict, type(None)), "sections": list_of(is_a(dict))}
    check_table("header", header, minor, table, "license sections")
    table = dict.fromkeys(("count", "height", "width"), is_a(int))
    table |= {"codec": one_of("png", "jpeg", "webp", "avif"), "mean": list_of(is_decimal), "std": list_of(is_decimal)}
    check_table("images", header["images"], minor, table)
    table = {"name": is_a(str), "length": is_a(int), "raw_length": is_a(int), "encoding": one_of("identity", "zstd")}
    table |= {"sha256": is_a(str), "critical": is_a(bool)}
    for section in header.get("sections", []):
        check_table("sections", section, minor, table)


def check_sections(header: dict[str, Any]) -> None:
    """H10 to H13, C1 and C6."""
    sections, projector = header.get("sections", []), header["projector"] or {}
    names = [section["name"] for section in sections]
    require(len(names) <= MAX_SECTIONS, "H10", f"{len(names)} sections")
    require(all(SECTION_NAME.fullmatch(name) for name in names), "H10", f"names {names!a}")
    require(len(set(names)) == len(names), "H10", f"names that do not differ: {names}")
    for section in sections:
        name, length, raw_length = section["name"], section["length"], section["raw_length"]
        require(length >= 0 and raw_length >= 0, "H11", f"{name}: a length below zero")
        require(SHA256.fullmatch(section["sha256"]) is not None, "H11", f"{name}: sha256 {section['sha256']!a}")
        same = section["encoding"] == "zstd" or length == raw_length
        require(same, "H11", f"{name}: lengths {length} and {raw_length} with identity")
        if section["encoding"] == "zstd":
            fair = length < raw_length <= min(MAX_RAW, max(FREE_RAW, MAX_RATIO * length))
            require(fair, "C1", f"{name}: {raw_length} bytes from {length}")
        require(name != "backbone" or raw_length <= MAX_BACKBONE, "C6", f"backbone: {raw_length} bytes")
    for name in ("images", "images.index", "targets"):
        require(name in names, "H12", f"no section {name}")
    require(("projector" in names) == (header["projector"] is not None), "H12", "projector: section or facts alone")
    require("probe" not in names or "projector" in names, "H12", "probe without projector")
    require(("backbone" in names) == (projector.get("tower") is not None), "H12", "backbone or tower without the other")
    required = ("images", "images.index", "targets", "projector", "backbone")
    for section in sections:
        name = section["name"]
        right = section["critical"] if name in required else not section["critical"] or name not in ("probe", "card")
        require(right, "H12", f"{name}: critical is {section['critical']}")
        plain = name not in ("images", "images.index") or section["encoding"] == "identity"
        require(plain, "H12", f"{name}: compressed")
    for section in sections:
        known = section["name"] in (*required, "probe", "card")
        require(known or not section["critical"], "H13", f"unknown section {section['name']}")


def locate_sections(header: dict[str, Any], header_length: int, file_length: int) -> dict[str, int]:
    """Return where each section begins: H14."""
    starts, end = {}, 64 + header_length
    for section in header["sections"]:
        starts[section["name"]] = end
        end += padded(section["length"])
    require(end == file_length, "H14", f"sections end at byte {end} in a file of {file_length}")
    return starts


def check_facts(images: dict[str, Any], classes: list[str]) -> None:
    """H17 to H19."""
    count, height, width = images["count"], images["height"], images["width"]
    size = f"{count} images of {height} by {width}"
    require(1 <= count <= MAX_IMAGES and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE, "H17", size)
    require(count * height * width * 3 <= MAX_PIXELS, "H17", size)
    require(len(images["mean"]) == 3 and len(images["std"]) == 3, "H18", "mean or std not of three channels")
    require(all(abs(float(mean)) <= MOST_MEAN for mean in images["mean"]), "H18", f"mean {images['mean']}")
    require(all(float(std) >= LEAST_STD for std in images["std"]), "H18", f"std {images['std']}")
    require(len(classes) >= 1 and "" not in classes, "H19", "no class, or one without a name")
    require(len(set(classes)) == len(classes), "H19", "names of classes that do not differ")


def read_sections(header: dict[str, Any], starts: dict[str, int], data: bytes) -> dict[str, bytes]:
    """Return the bytes of each section as stored: H15 and H16."""
    stored = {}
    for section in header["sections"]:
        name, length = section["name"], section["length"]
        end = starts[name] + length
        require(not any(data[end : starts[name] + padded(length)]), "H15", f"{name}: padding that is not zero")
        stored[name] = data[starts[name] : end]
        require(hashlib.sha256(stored[name]).hexdigest() == section["sha256"], "H16", f"{name}: another digest")
    return stored


def read_images(count: int, index: bytes, images: bytes) -> list[bytes]:
    """Return the stream of each image: H20 and H21."""
    require(len(index) == 8 * count, "H20", f"images.index: {len(index)} bytes for {count} images")
    entries = list(struct.iter_unpack("<II", index))
    total = sum(length for length, _ in entries)
    require(total == len(images), "H20", f"images.index: {total} bytes in all, images has {len(images)}")
    streams, start = [], 0
    for number, (length, checksum) in enumerate(entries):
        streams.append(images[start : start + length])
        require(zlib.crc32(streams[-1]) == checksum, "H21", f"image {number}: another CRC-32")
        start += length
    return streams


def read_targets(header: dict[str, Any], stored: bytes) -> list[int]:
    """Return the class of each image, or nothing where `targets` is compressed: H22."""
    section = next(section for section in header["sections"] if section["name"] == "targets")
    count, classes = header["images"]["count"], len(header["classes"])
    require(section["raw_length"] == 4 * count, "H22", f"targets: {section['raw_length']} bytes for {count} images")
    targets = [] if section["encoding"] == "zstd" else [target for (target,) in struct.iter_unpack("<I", stored)]
    require(all(target < classes for target in targets), "H22", f"targets: not all below {classes}")
    return targets


def check_views(views: dict[str, Any], minor: int, height: int, width: int) -> None:
    """H23."""
    table = {"size": is_a(int), "flip": is_a(bool), "shuffle": is_a(int), "mix": one_of("none", "cutmix", "mixup")}
    table["scale"] = lambda value: list_of(is_decimal)(value) and len(value) == 2
    check_table("views", views, minor, table, "scale flip shuffle mix", "H23")
    require(1 <= views["size"] <= 4096, "H23", f"views: size {views['size']}")
    low, high = (float(share) for share in views.get("scale", ("0.08", "1")))
    require(0 < low <= high <= 1, "H23", f"views: scale {low} to {high}")
    shuffle = views.get("shuffle", 1)
    divides = 1 <= shuffle <= 16 and height % shuffle == 0 and width % shuffle == 0
    require(divides, "H23", f"views: shuffle {shuffle} of {height} by {width}")


def check_contents(header: dict[str, Any], stored: dict[str, bytes]) -> None:
    """C4 and C5, of what is not compressed."""
    for section in header["sections"]:
        name = section["name"]
        if section["encoding"] == "zstd":
            continue
        if name in ("projector", "probe", "backbone"):
            check_tensors(name, stored[name])
        elif name == "card":
            try:
                stored[name].decode("utf-8")
            except UnicodeDecodeError as error:
                raise RefusedError("C5", f"card: {error}") from error


def check_tensors(name: str, stored: bytes) -> None:
    """C4."""
    start = 8 + int.from_bytes(stored[:8], "little")
    require(8 <= start <= len(stored) and start <= 8 + MAX_HEADER, "C4", f"{name}: no safetensors header")
    header = parse_json(stored[8:start], "C4")
    require(isinstance(header, dict) and stored[8:9] == b"{", "C4", f"{name}: the header is no object")
    metadata = header.pop("__metadata__", {})
    texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    require(texts, "C4", f"{name}: metadata that are not texts")
    end = 0
    for begin, next_end in sorted(tensor_span(f"{name}: {key!a}", tensor) for key, tensor in header.items()):
        require(begin == end, "C4", f"{name}: a hole or an overlap at byte {end} of the data")
        end = next_end
    require(start + end == len(stored), "C4", f"{name}: data that do not end the section")


def tensor_span(where: str, tensor: Any) -> tuple[int, int]:
    """Return where the data of a tensor begin and end."""
    known = {"dtype", "shape", "data_offsets"}
    keys = isinstance(tensor, dict) and known == {key for key in tensor if not key.startswith("x-")}
    require(keys, "C4", f"{where}: not dtype, shape and data_offsets")
    dtype, shape, offsets = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
    require(isinstance(dtype, str) and dtype in DTYPES, "C4", f"{where}: type {dtype!a}")
    for numbers in (shape, offsets):
        require(list_of(is_a(int))(numbers) and min(numbers, default=0) >= 0, "C4", f"{where}: shape or offsets")
    require(len(shape) <= MAX_RANK and len(offsets) == 2, "C4", f"{where}: shape or offsets")
    require(math.prod(side or 1 for side in shape) * DTYPES[dtype] < 2**63, "C4", f"{where}: too large a shape")
    begin, end = offsets
    require(end - begin == math.prod(shape) * DTYPES[dtype], "C4", f"{where}: offsets do not fit the shape")
    return begin, end


def read(data: bytes) -> dict[str, Any]:
    """Return what a valid file holds.

    Returns:
        `header`, the JSON value; `content_id`, hexadecimal; `sections`, the bytes of each as stored; `images`, the
        stream of each; `targets`, the class of each, or nothing where that section is compressed.

    Raises:
        RefusedError: a rule is broken; this names the first one.
    """
    minor, header_length = read_prologue(data)
    header = read_header(data[64 : 64 + header_length])
    check_keys(header, minor)
    check_sections(header)
    starts = locate_sections(header, header_length, len(data))
    facts = header["images"]
    check_facts(facts, header["classes"])
    sections = read_sections(header, starts, data)
    images = read_images(facts["count"], sections["images.index"], sections["images"])
    targets = read_targets(header, sections["targets"])
    check_views(header["views"], minor, facts["height"], facts["width"])
    check_contents(header, sections)
    digest = data[24:56].hex()
    return {"header": header, "content_id": digest, "sections": sections, "images": images, "targets": targets}


def main(paths: list[str]) -> int:
    """Return 0 where every file is valid, else 1."""
    status = 0
    for path in paths:
        try:
            content = read(Path(path).read_bytes())
        except (RefusedError, OSError) as error:
            print(f"{path}: {error}")
            status = 1
        else:
            images, classes = len(content["images"]), len(content["header"]["classes"])
            print(f"{path}: {content['content_id']}, {images} images of {classes} classes")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
