from pathlib import Path

import pytest
from click.testing import CliRunner

from hellods_cli import main


def verify(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["verify", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_whole_archive_is_said_to_be_whole(archive_file: Path) -> None:
    status, out, err = verify(archive_file)
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == ["4 images decoded, each 8 × 8 px", "no projector, so no labels to check"]


def test_labels_are_made_again(digits_archive: Path) -> None:
    status, out, _ = verify("--quiet", digits_archive)
    assert (status, out.splitlines()[-1]) == (0, "labels made again, equal to the probe")


@pytest.mark.parametrize("place", [-1, -70, 200, 30, 3], ids=["padding", "section", "header", "prologue", "signature"])
def test_altered_byte_is_one_line_and_status_1(place: int, archive_file: Path, tmp_path: Path) -> None:
    data = bytearray(archive_file.read_bytes())
    data[place] ^= 1
    altered = tmp_path / "altered.hello"
    altered.write_bytes(data)
    status, out, err = verify(altered)
    assert (status, out) == (1, "")
    assert err.startswith(f"Error: {altered}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0" * 64], ids=["short", "long"])
def test_truncated_or_extended_file_is_one_line_and_status_1(change, archive_file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    altered = tmp_path / "altered.hello"
    altered.write_bytes(change(archive_file.read_bytes()))
    status, _, err = verify(altered)
    assert (status, err.count("\n")) == (1, 1)
    assert "truncated or extended" in err


def test_another_base_model_is_refused(digits_archive: Path, shared: Path) -> None:
    status, _, err = verify("--quiet", "--base", f"local-dir:{shared}/data/clip/mobilenetv2-in1k", digits_archive)
    assert (status, err.count("\n")) == (1, 1)
    assert "SHA-256" in err
