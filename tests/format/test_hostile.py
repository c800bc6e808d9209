"""Whatever the bytes, reading an archive ends in an error of ours or in the content."""

import copy
import functools
import io
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from hellods.errors import HelloError
from hellods.format.archive import Archive

from .forge import HEADER, PIXELS, SECTIONS, compress, forge, images, stream

CODECS = ("png", "jpeg", "webp", "avif")
RUNS = 1000


def read_whole(data: bytes) -> bool:
    """Read all that an archive has; False where it is refused."""
    try:
        archive = Archive.open(io.BytesIO(data))
        archive.verify()
        for index in range(archive.header.images.count):
            archive.image(index)
        archive.pixels()
    except HelloError as error:
        if not re.fullmatch(r"archive: .* \[[HC]\d+\]", str(error)):  # "." is no line end
            raise
        return False
    return True


@functools.cache
def streams(codec: str) -> list[bytes]:
    return [stream(pixels, codec) for pixels in PIXELS]


def valid(codec: str) -> bytes:
    return forge(lambda header: header["images"].update(codec=codec), sections=images(streams(codec)))


def mutated(data: bytes, generator: random.Random) -> bytes:
    """`data` with a few bytes changed, cut out, repeated or put in."""
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(data))
        stop = start + generator.choice([1, 1, 1, 4, 50])
        filling = generator.choice(
            [generator.randbytes(1), generator.randbytes(4), b"", b"\xff" * 4, bytes(8), data[start:stop] * 2]
        )
        data = data[:start] + filling + data[stop:]
        if not data:
            return b"\0"
    return data


HOSTILE = [
    None, True, False, 0, 1, -1, 2, 2**31, 2**32, 2**53 - 1, -(2**53) + 1, "", "0", "-1", "1e999", "nan", "../../etc",
    "\0", "\x1b[2J\n", "a" * 5000, "🙂", "__class__", [], {}, [[]], [None], {"a": None}, {"x-a": {}}, [0] * 100,
    ["0"] * 3, "zstd", "identity", "gif", "webp", "hello/0.10", "f" * 64,
]  # fmt: skip


def paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value within a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (key,)
        if isinstance(value[key], (dict, list)):
            yield from ((key, *rest) for rest in paths(value[key]))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """The value at the end of a path."""
    return functools.reduce(lambda holder, key: holder[key], path, value)


def restructured(header: dict[str, Any], generator: random.Random) -> None:
    """Change some values of a header."""
    for _ in range(generator.choice([1, 1, 1, 2, 3])):
        one, other = (generator.choice(list(paths(header))) for _ in range(2))
        holder, key, copied = at(header, one[:-1]), one[-1], copy.deepcopy(at(header, other))
        action = generator.randrange(6)
        if action == 0:
            del holder[key]
        elif action == 1:
            holder[key] = copied
        elif action == 2 and isinstance(holder, list):
            holder.insert(key, copied)
        elif action == 3 and isinstance(holder, dict):
            holder[generator.choice(["extra", "x-new", "format", "new", ""])] = generator.choice(HOSTILE)
        elif action == 4 and isinstance(holder[key], int):
            holder[key] += generator.choice([-1, 1, 64, 2**40])
        else:
            holder[key] = copy.deepcopy(generator.choice(HOSTILE))


def resealed(generator: random.Random) -> bytes:
    """An archive that was changed within, under digests that fit again."""
    codec = generator.choice(CODECS)
    own = streams(codec).copy()
    sections: dict[str, bytes] = {}
    stored: dict[str, bytes] = {}
    edits = []
    sections["backbone"] = SECTIONS["projector"]
    parts = ["images.index", "targets", "projector", "backbone", "card"]
    target = generator.choice(["header", "header", "images", "frame", *parts])
    if target == "header":
        edits.append(lambda header: restructured(header, generator))
    elif target == "images":
        which = generator.randrange(3)
        own[which] = mutated(own[which], generator)
    elif target == "frame":
        stored["projector"] = mutated(compress(SECTIONS["projector"]), generator)
    sections.update(images(own))
    if target in parts:
        sections[target] = mutated({**SECTIONS, **sections}[target], generator)

    def edit(header: dict[str, Any]) -> None:
        header["images"]["codec"] = codec
        header["projector"]["tower"] = {"width": 8}
        for change in edits:
            change(header)

    return forge(edit, sections=sections, stored=stored)


@pytest.mark.parametrize("codec", CODECS)
def test_archive_before_mutation_is_read(codec: str) -> None:
    assert read_whole(valid(codec))


def test_mutated_archives_are_refused_or_read() -> None:
    generator = random.Random(0)
    originals = [valid(codec) for codec in CODECS]
    for _ in range(RUNS):
        data = mutated(generator.choice(originals), generator)
        assert not read_whole(data) or data in originals


def test_resealed_archives_are_refused_or_read() -> None:
    generator = random.Random(0)
    read = sum(read_whole(resealed(generator)) for _ in range(RUNS))
    assert 50 < read < RUNS - 300  # both happen, or the test tests little


def test_each_value_of_the_header_may_be_hostile() -> None:
    for *path, key in paths(HEADER):
        for value in HOSTILE:

            def edit(header: dict[str, Any], path: Any = path, key: Any = key, value: Any = value) -> None:
                at(header, path)[key] = value

            read_whole(forge(edit))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 - 1])
def test_index_that_points_outside_is_refused(length: int) -> None:
    assert not read_whole(forge(sections={"images.index": struct.pack("<6I", *(length, 0) * 3)}))
