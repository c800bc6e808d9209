import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from hellods.distill.recipe import Recipe
from hellods.format.archive import Archive
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
    assert row(screens[1], "beside it") == "hello-tiny (in this package)"
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


def test_recipe_is_toml_without_what_is_not_set(archive_file: Path) -> None:
    out = CliRunner().invoke(main, ["inspect", "--recipe", str(archive_file)], catch_exceptions=False).stdout
    recipe = Recipe(images_per_class=2)
    assert tomllib.loads(out) == {key: value for key, value in asdict(recipe).items() if value is not None}


def test_json_and_recipe_are_one_too_many(archive_file: Path) -> None:
    assert CliRunner().invoke(main, ["inspect", "--json", "--recipe", str(archive_file)]).exit_code == 2
