"""A file is written whole and valid, or not at all."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hellods.errors import FormatError, HelloError
from hellods.format.archive import Archive, write
from hellods.format.codecs import encode
from hellods.format.files import check_target
from hellods.format.header import Header, Images
from hellods.format.streams import image_sections

from .forge import PIXELS, SECTIONS, SIDE, forge

HEADER = Header(
    name="three",
    created_by="hellods",
    source={},
    classes=("cat", "dog"),
    images=Images(count=3, codec="png", height=SIDE, width=SIDE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    views={},
    projector={},
    teacher={},
    recipe={},
    metrics={},
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "three.hello"


@pytest.fixture(autouse=True)
def folder(target: Path) -> Path:
    target.parent.mkdir()
    return target.parent


def test_same_content_gives_the_same_bytes(target: Path, tmp_path: Path) -> None:
    backwards = dict(reversed(list(SECTIONS.items())))
    first, second = write(target, HEADER, SECTIONS), write(tmp_path / "again", HEADER, backwards)
    assert first == second
    assert target.read_bytes() == (tmp_path / "again").read_bytes()


def test_id_returned_is_that_of_the_file(target: Path) -> None:
    content_id = write(target, HEADER, SECTIONS)
    with Archive.open(target) as archive:
        assert archive.content_id == content_id


@pytest.mark.parametrize("codec", ["png", "jpeg", "webp", "avif"])
def test_every_codec_is_read_back(codec: Any, target: Path) -> None:
    streams = [encode(pixels, codec, None if codec in ("png", "webp") else 90) for pixels in PIXELS]
    header = replace(HEADER, images=replace(HEADER.images, codec=codec))
    write(target, header, {**SECTIONS, **image_sections(streams)})
    with Archive.open(target) as archive:
        assert [archive.image(i) for i in range(3)] == streams
        assert archive.pixels().shape == (3, SIDE, SIDE, 3)


@given(
    pixels=st.lists(st.binary(min_size=12, max_size=12), min_size=1, max_size=4),
    others=st.dictionaries(st.from_regex(r"x-[a-z0-9._-]{1,20}", fullmatch=True), st.binary(max_size=300), max_size=3),
    card=st.text(st.characters(exclude_categories=["Cs"])),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_accepted(pixels: list[bytes], others: dict[str, bytes], card: str, target: Path) -> None:
    images = [np.frombuffer(one, np.uint8).reshape(2, 2, 3) for one in pixels]
    facts = replace(HEADER.images, count=len(images), height=2, width=2)
    header = replace(HEADER, images=facts, projector=None)
    sections = {
        **others,
        **image_sections([encode(image, "png", None) for image in images]),
        "targets": bytes(4 * len(images)),
        "card": card.encode(),
    }
    write(target, header, sections, overwrite=True)
    with Archive.open(target) as archive:
        archive.verify()
        assert {name: archive.read(name) for name in sections} == sections
        assert np.array_equal(archive.pixels(), images)


def test_rewriting_keeps_the_keys_of_others_and_of_later_versions(target: Path) -> None:
    def later(header: dict[str, Any]) -> None:
        for record in (header, header["images"], header["sections"][2]):
            record.update({"later": 1, "x-mine": 2})
        header["format"] = "hello/0.10"

    target.write_bytes(forge(later, minor=10))
    with Archive.open(target) as archive:
        sections = {section.name: archive.read(section.name) for section in archive.header.sections}
        write(target.with_name("again"), archive.header, sections)
    with Archive.open(target.with_name("again")) as again:
        kept = {"later": 1, "x-mine": 2}
        assert again.header.format == "hello/0.10"
        assert (again.header.extra, again.header.images.extra, again.header.sections[2].extra) == (kept, kept, kept)


def test_existing_file_is_left_alone(target: Path) -> None:
    target.write_bytes(b"mine")
    with pytest.raises(HelloError, match=r"three\.hello: exists already: .* `overwrite=True`"):
        write(target, HEADER, SECTIONS)
    assert target.read_bytes() == b"mine"


def test_existing_file_is_replaced_when_told_to(target: Path) -> None:
    target.write_bytes(b"mine")
    write(target, HEADER, SECTIONS, overwrite=True)
    with Archive.open(target) as archive:
        archive.verify()


def test_file_that_appears_meanwhile_is_left_alone(target: Path) -> None:
    with pytest.raises(HelloError, match="exists already"):
        write(target, HEADER, SECTIONS, progress=lambda *step: target.write_bytes(b"mine"))
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"mine"]


@pytest.mark.parametrize("appears", [False, True])
def test_file_system_without_links_is_served_too(appears: bool, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, source: Path) -> None:
        if appears:
            target.write_bytes(b"mine")
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    if appears:
        with pytest.raises(HelloError, match="exists already"):
            write(target, HEADER, SECTIONS)
        assert [path.read_bytes() for path in target.parent.iterdir()] == [b"mine"]
    else:
        write(target, HEADER, SECTIONS)
        assert [path.name for path in target.parent.iterdir()] == ["three.hello"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_interrupt_leaves_what_was_there(interrupt: type[BaseException], overwrite: bool, target: Path) -> None:
    if overwrite:
        target.write_bytes(b"mine")
    before = {path: path.read_bytes() for path in target.parent.iterdir()}

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise interrupt

    with pytest.raises(interrupt):
        write(target, HEADER, SECTIONS, overwrite=overwrite, progress=stop)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before


def test_full_disk_is_one_line_and_leaves_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HelloError, match=r"three\.hello: cannot be written: No space left on device$"):
        write(target, HEADER, SECTIONS)
    assert list(target.parent.iterdir()) == []


SMALL = """
import resource, sys
from hellods.errors import HelloError
from hellods.format.archive import Archive, write

with Archive.open(sys.argv[1]) as archive:
    sections = {section.name: archive.read(section.name) for section in archive.header.sections}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write(sys.argv[2], archive.header, sections)
    except HelloError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file by RLIMIT_FSIZE")
def test_file_that_the_system_cuts_short_leaves_nothing(target: Path, tmp_path: Path) -> None:
    write(tmp_path / "whole", HEADER, SECTIONS)
    command = [sys.executable, "-c", SMALL, tmp_path / "whole", target]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("cannot be written: File too large\n")
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": b"", "images.index": bytes(24)}, r"\[C3\]"),
        ({"targets": b"\2" + bytes(11)}, r"\[H22\]"),
        ({"projector": b"no"}, r"\[C4\]"),
        ({"Notes": b""}, r"\[H10\]"),
    ],
)
def test_content_that_no_reader_takes_is_not_written(change: dict[str, bytes], message: str, target: Path) -> None:
    with pytest.raises(FormatError, match=rf"three\.hello: .*{message}$"):
        write(target, HEADER, {**SECTIONS, **change})
    assert list(target.parent.iterdir()) == []


def test_new_file_has_the_rights_of_any_new_file(target: Path) -> None:
    other = target.with_name("other")
    other.touch()
    write(target, HEADER, SECTIONS)
    assert target.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/three.hello", "there is no folder .*missing: create it first"),
        ("file/three.hello", "there is no folder .*file"),
        ("folder", "folder: is not a file"),
        ("pipe", "pipe: is not a file"),
        (".", "is not a file"),
        ("long" * 100, "cannot be written: File name too long"),
        ("file", "file: exists already"),
        ("dangling", "dangling: exists already"),
    ],
)
def test_bad_target_is_told_before_work_starts(name: str, message: str, folder: Path) -> None:
    (folder / "file").touch()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(HelloError, match=message):
        check_target(folder / name, overwrite=False)


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_what_is_no_file_is_never_overwritten(name: str, folder: Path) -> None:
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with pytest.raises(HelloError, match="is not a file"):
        check_target(folder / name, overwrite=True)


def test_folder_without_the_right_to_write_is_told(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != target.parent)  # root may write anywhere
    with pytest.raises(HelloError, match="is not writable"):
        check_target(target, overwrite=False)


def test_good_target_passes(target: Path) -> None:
    check_target(target, overwrite=False)
    target.touch()
    check_target(target, overwrite=True)
