import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from click.testing import CliRunner

from hellods.distill.recipe import Recipe
from hellods.format.archive import Archive, write
from hellods.record import to_json
from hellods.teachers.scale import MEAN, STD
from hellods_cli import main


@pytest.fixture(scope="module")
def screen(archive_file: Path) -> str:
    return CliRunner().invoke(main, ["inspect", str(archive_file)], catch_exceptions=False).stdout


def row(screen: str, label: str) -> str:
    (line,) = (line for line in screen.splitlines() if line.startswith(f"{label} "))
    return line.removeprefix(label).strip()


def test_one_screen_of_80_columns(screen: str, archive_file: Path) -> None:
    lines = screen.replace(str(archive_file), "FILE").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith(" ") for line in lines)


def test_id_stands_whole(screen: str, archive_file: Path) -> None:
    with Archive.open(archive_file) as archive:
        assert row(screen, "id") == archive.content_id


def test_missing_license_is_said(screen: str) -> None:
    assert row(screen, "license").startswith("NOASSERTION (no license is stated")


def test_names_from_the_file_cannot_steer_the_terminal(screen: str) -> None:
    assert row(screen, "classes") == r"2: warm, cold\x1b[2J"


def test_bytes_of_the_parts_add_up_to_the_file(screen: str, archive_file: Path) -> None:
    lines = screen.partition("\nbytes ")[2].split("\n\n")[0].splitlines()
    counts = [int(line.split("  ")[-1].replace(",", "")) for line in lines]
    assert counts[-1] == sum(counts[:-1]) == archive_file.stat().st_size


def test_base_model_in_the_file_is_said_with_its_bytes(embedded_archive: Path, digits_archive: Path) -> None:
    screens = [
        CliRunner().invoke(main, ["inspect", str(path)], catch_exceptions=False).stdout
        for path in (embedded_archive, digits_archive)
    ]
    with Archive.open(embedded_archive) as archive:
        (entry,) = (section for section in archive.header.sections if section.name == "backbone")
    assert row(screens[0], "bytes").startswith("backbone ")
    assert f" {entry.length:,}  zstd, {entry.raw_length:,} unpacked" in row(screens[0], "bytes")
    assert row(screens[0], "beside it") == "nothing: the file holds its base model, small"
    assert row(screens[1], "beside it") == "hello-convnet (in this package)"
    assert "tower" not in screens[0]


def test_measurements_are_marked_as_claims(screen: str) -> None:
    assert row(screen, "claims") == "agreement_on_views 0.8"
    assert "(the author's own, not checked)" in screen


def test_file_without_projector_says_what_labels_there_are(screen: str) -> None:
    assert row(screen, "labels").startswith("hard labels alone")


def test_json_is_the_header_with_id_and_bytes(archive_file: Path) -> None:
    out = json.loads(CliRunner().invoke(main, ["inspect", "--json", str(archive_file)]).stdout)
    assert out["bytes"] == archive_file.stat().st_size
    assert len(out["content_id"]) == 64
    assert out["header"]["classes"] == ["warm", "cold\x1b[2J"]


def printed_recipe(archive_file: Path, to: Path, **changes: Any) -> str:
    """Return what is printed for an archive like another one, with some of its header changed."""
    with Archive.open(archive_file) as archive:
        kept = {section.name: archive.read(section.name) for section in archive.header.sections}
        tensors = {"projector": safetensors.numpy.save({})} if "projector" in changes else {}
        write(to, replace(archive.header, **changes), kept | tensors)
    return CliRunner().invoke(main, ["inspect", "--recipe", str(to)], catch_exceptions=False).stdout


def test_recipe_is_toml_without_what_is_not_set(archive_file: Path, tmp_path: Path) -> None:
    recipe = Recipe(images_per_class=2, teacher_stages=(1, 2))
    out = printed_recipe(archive_file, tmp_path / "x.hello", recipe=to_json(recipe))
    known = {key: value for key, value in asdict(recipe).items() if value is not None}
    assert tomllib.loads(out) == known | {"teacher_stages": [1, 2]}
    assert [line for line in out.splitlines() if line.startswith("#")] == [
        "# teacher, which no recipe names: convnet3",
        "# its mean and std, which no recipe names: 0.5,0.5,0.5; 0.25,0.25,0.25",
    ]


def test_teacher_that_was_trained_is_named_as_a_build_takes_it(archive_file: Path, tmp_path: Path) -> None:
    recipe = Recipe(assistant="none", teacher_stages=(1, 2))
    out = printed_recipe(archive_file, tmp_path / "x.hello", recipe=to_json(recipe))
    assert "# teacher, which no recipe names: train:convnet3" in out.splitlines()


def test_public_base_model_is_part_of_the_recipe(archive_file: Path, tmp_path: Path) -> None:
    projector = {"base": "hello-tiny", "base_sha256": "0" * 64}
    out = printed_recipe(archive_file, tmp_path / "x.hello", projector=projector)
    assert tomllib.loads(out)["base"] == "hello-tiny"
    assert "base model" not in out


def test_recipe_is_followed_by_what_it_does_not_name(archive_file: Path, tmp_path: Path) -> None:
    teacher, projector = {"architecture": "big\nnet"}, {"base": "given:mine", "base_sha256": "0" * 64}
    with Archive.open(archive_file) as archive:
        usual = replace(archive.header.images, mean=MEAN, std=STD)
    out = printed_recipe(archive_file, tmp_path / "x.hello", teacher=teacher, projector=projector, images=usual)
    assert out.splitlines()[-2:] == [
        "# base model, which no recipe names: mine",
        "# teacher, which no recipe names: big\\nnet",
    ]


def test_recipe_is_followed_by_inputs_that_change_labels(archive_file: Path, tmp_path: Path) -> None:
    with Archive.open(archive_file) as archive:
        images, projector = archive.header.images, archive.header.projector or {}
        texts = [f"a kind of {name}" for name in archive.header.classes]
    shown = replace(images, mean=(0.5, 0.5, 0.25))
    out = printed_recipe(
        archive_file, tmp_path / "x.hello", images=shown, projector=projector | {"descriptions": texts}
    )
    assert f"# its mean and std, which no recipe names: 0.5,0.5,0.25; {','.join(map(str, images.std))}\n" in out
    assert "# texts of the classes, which no recipe names: see inspect --json\n" in out


def test_recipe_is_what_the_file_holds_and_says_what_it_lacks(archive_file: Path) -> None:
    out = CliRunner().invoke(main, ["inspect", "--recipe", str(archive_file)], catch_exceptions=False).stdout
    assert tomllib.loads(out) == {"images_per_class": 2}
    (line,) = (line for line in out.splitlines() if line.startswith("# not"))
    assert line.startswith("# not in the file: preset, ")
    assert ", quantization, " in line
    assert ", side" not in line


def test_recipe_of_a_newer_file_leaves_out_what_is_not_known_and_says_so(archive_file: Path, tmp_path: Path) -> None:
    recipe = to_json(Recipe()) | {"sharpness\nseed = 7": 1}
    out = printed_recipe(archive_file, tmp_path / "x.hello", recipe=recipe, format="hello/0.99")
    assert tomllib.loads(out) == {key: value for key, value in asdict(Recipe()).items() if value is not None}
    assert "# not known to this version: sharpness\\nseed = 7\n" in out


def test_json_and_recipe_are_one_too_many(archive_file: Path) -> None:
    assert CliRunner().invoke(main, ["inspect", "--json", "--recipe", str(archive_file)]).exit_code == 2


def test_card_of_a_build_is_markdown_that_names_source_teacher_and_measurements(digits_archive: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", "--card", str(digits_archive)], catch_exceptions=False)
    with Archive.open(digits_archive) as archive:
        header = archive.header
    lines, share = shown.stdout.splitlines(), 100 * float(header.metrics["projector_held_out_accuracy"])
    assert (shown.exit_code, lines[0]) == (0, r"# few\_digits")
    assert rf"- Distilled from: few\_digits, {header.source['images']:,} images" in lines
    assert f"- accuracy on held-out real images: {share:.1f} %" in lines
    assert any(line.startswith("- Teacher: convnet3, right on ") for line in lines)


def test_card_cannot_steer_the_terminal(digits_archive: Path, tmp_path: Path) -> None:
    with Archive.open(digits_archive) as archive:
        sections = {section.name: archive.read(section.name) for section in archive.header.sections}
        write(tmp_path / "x.hello", archive.header, sections | {"card": b"\x1b[2J\n"})
    shown = CliRunner().invoke(main, ["inspect", "--card", str(tmp_path / "x.hello")], catch_exceptions=False)
    assert shown.stdout == "\\x1b[2J\n"


def test_missing_card_is_said(archive_file: Path) -> None:
    shown = CliRunner().invoke(main, ["inspect", "--card", str(archive_file)])
    assert (shown.exit_code, shown.stderr) == (1, f"Error: {archive_file}: holds no card\n")
