"""An archive reads what is asked for, checked, and no more."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hellods.errors import HelloError
from hellods.format.archive import Archive

from .forge import PIXELS, SECTIONS, forge, images, stream

VALID = forge()


class Spy(io.BytesIO):
    """Counts the bytes read."""

    total = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.total += len(data)
        return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "three.hello"
    path.write_bytes(VALID)
    return path


def test_sections_are_what_was_put_in(path: Path) -> None:
    with Archive.open(path) as archive:
        assert {name: archive.read(name) for name in SECTIONS} == SECTIONS


def test_pixels_and_targets_are_in_order(path: Path) -> None:
    with Archive.open(str(path)) as archive:
        assert np.array_equal(archive.pixels(), PIXELS)
        assert archive.targets().tolist() == [0, 1, 0]


def test_content_id_is_the_digest_of_the_header(path: Path) -> None:
    end = 64 + int.from_bytes(VALID[12:16], "little")
    with Archive.open(path) as archive:
        assert archive.content_id == hashlib.sha256(VALID[64:end]).hexdigest()


def test_opening_reads_prologue_and_header_alone() -> None:
    file = Spy(VALID)
    Archive.open(file)
    assert file.total == 64 + int.from_bytes(VALID[12:16], "little")


def test_known_archive_is_opened_by_its_prologue_alone(path: Path) -> None:
    with Archive.open(path) as known:
        first = known.image(0)
    with Archive.open(path, known) as again:
        assert again.header is known.header
        assert again.image(0) == first
    path.write_bytes(forge(lambda header: header.update(name="another")))
    with Archive.open(path, known) as another:
        assert (another.header.name, another.content_id == known.content_id) == ("another", False)


def test_one_image_is_read_without_the_others() -> None:
    file = Spy(VALID)
    archive = Archive.open(file)
    archive.image(0)
    file.total = 0
    assert archive.image(1) == stream(PIXELS[1])
    assert file.total == len(stream(PIXELS[1]))


@pytest.mark.parametrize("index", [-1, 3])
def test_image_that_is_not_there_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        Archive.open(io.BytesIO(VALID)).image(index)


def test_damage_to_one_image_leaves_the_others_readable() -> None:
    archive = Archive.open(io.BytesIO(VALID.replace(stream(PIXELS[2]), stream(PIXELS[2])[:-1] + b"?")))
    assert archive.image(1) == stream(PIXELS[1])
    with pytest.raises(HelloError, match=r"image 2 .* \[H21\]"):
        archive.image(2)


def test_progress_counts_every_image() -> None:
    steps: list[tuple[str, int, int]] = []
    Archive.open(io.BytesIO(VALID)).verify(lambda *step: steps.append(step))
    assert steps == [("Verify", done, 3) for done in range(4)]


def test_more_images_than_a_batch_stay_in_order() -> None:
    pixels = np.zeros((600, 4, 4, 3), np.uint8) + np.arange(600).reshape(-1, 1, 1, 1).astype(np.uint8)
    streams = images([stream(one) for one in pixels])
    data = forge(
        lambda header: header["images"].update(count=600, height=4, width=4),
        sections={**streams, "targets": bytes(2400)},
    )
    assert np.array_equal(Archive.open(io.BytesIO(data)).pixels(), pixels)


def test_path_is_closed_and_a_file_of_the_caller_is_not(path: Path) -> None:
    with Archive.open(path) as archive:
        pass
    with pytest.raises(ValueError, match="closed file"):
        archive.read("card")
    with path.open("rb") as file:
        Archive.open(file).close()
        assert not file.closed


def test_broken_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "broken.hello"
    path.write_bytes(b"no")
    with pytest.raises(HelloError, match=r"broken\.hello: not a \.hello file"):
        Archive.open(path)  # a file left open is a warning, and an error here


@pytest.mark.parametrize("name", ["missing.hello", "missing/three.hello", "three.hello/three.hello"])
def test_missing_file_is_named(name: str, path: Path) -> None:
    with pytest.raises(HelloError, match=f"{name}: no such file"):
        Archive.open(path.parent / name)


def test_folder_is_named_as_no_file(tmp_path: Path) -> None:
    with pytest.raises(HelloError, match=f"{tmp_path}: not a file"):
        Archive.open(tmp_path)


def test_name_that_the_system_refuses_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(HelloError, match=r"cannot be read: File name too long$"):
        Archive.open(tmp_path / ("long" * 100))


def test_disk_that_fails_is_an_error_of_ours() -> None:
    file = io.BytesIO(VALID)
    archive = Archive.open(file)

    def fail(offset: int, whence: int = 0) -> int:
        raise OSError(5, "Input/output error")

    file.seek = fail  # type: ignore[method-assign]
    with pytest.raises(HelloError, match="archive: cannot be read: Input/output error"):
        archive.read("card")


def test_header_and_plain_sections_need_no_library(path: Path) -> None:
    code = (
        "import sys; from hellods.format.archive import Archive; archive = Archive.open(sys.argv[1]); "
        "archive.read('card'); archive.image(1); print({'torch', 'numpy', 'PIL', 'zstandard'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
