from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load, save

from hellods.format.archive import Archive, write
from hellods_cli import main


def verify(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["verify", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_whole_archive_is_said_to_be_whole(archive_file: Path) -> None:
    status, out, err = verify(archive_file)
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == ["4 images decoded, each 8 × 8 px", "no projector, so no labels to check"]


def test_labels_of_an_archive_made_before_are_still_those_of_its_probe() -> None:
    status, out, _ = verify("--quiet", Path(__file__).parents[2] / "spec" / "vectors" / "valid" / "digits.hello")
    assert (status, out.splitlines()[-1]) == (0, "labels made again, equal to the probe")


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


def test_what_no_data_set_could_be_made_of_is_refused_without_a_projector_too(
    archive_file: Path, tmp_path: Path
) -> None:
    with Archive.open(archive_file) as archive:
        sections = {section.name: archive.read(section.name) for section in archive.header.sections}
        write(tmp_path / "odd.hello", replace(archive.header, views={"size": 0}), sections)
    status, out, err = verify(tmp_path / "odd.hello")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "size is 0, expected 1 to 4096 [H23]" in err


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


def test_base_model_in_the_file_is_checked_also_beside_a_given_one(
    embedded_archive: Path, small_base: Path, tmp_path: Path
) -> None:
    status, out, _ = verify("--quiet", embedded_archive)
    expected = [
        "the base model is in the file, and its tensors equal their SHA-256",
        "labels made again, equal to the probe",
    ]
    assert (status, out.splitlines()[2:]) == (0, expected)
    with Archive.open(embedded_archive) as archive:
        sections = {section.name: archive.read(section.name) for section in archive.header.sections}
        tensors = load(sections["backbone"])
        tensors["tower.ln_post.bias"] += 1
        write(tmp_path / "x.hello", archive.header, sections | {"backbone": save(tensors)})
    given = ["--base", f"local-dir:{small_base}"]
    for options in ([], given):
        status, _, err = verify("--quiet", *options, tmp_path / "x.hello")
        fault = "backbone: the tensors differ from the SHA-256 that projector.tower states [C8]"
        assert (status, err) == (1, f"Error: {tmp_path / 'x.hello'}: {fault}\n")
    assert verify("--quiet", *given, embedded_archive)[0] == 0
