import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hellods.distill import arrange
from hellods.distill import build as library
from hellods.distill import plan as planning
from hellods.distill.build import Report
from hellods.distill.recipe import FOLLOWS, Inputs, Recipe
from hellods.distill.resume import Work
from hellods.distill.toml import to_toml
from hellods.errors import OptionError
from hellods.forecast import Cost
from hellods.format.archive import Archive, write
from hellods.sources.source import Pixels
from hellods.teachers import training
from hellods_cli import main
from hellods_cli.build import command, made, read_names
from hellods_cli.loop import loop

COSTS = (
    Cost(stage="Data", steps=1438, seconds=4.4, memory=400_000_000),
    Cost(stage="Projector", steps=338, seconds=60.0, memory=1_234_000_000),
)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["build", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, digits_archive: Path, tmp_path: Path) -> dict[str, Any]:
    """What the library's build is called with, in place of building."""
    calls: dict[str, Any] = {}

    def carry_out(asked: dict[str, Any], kept: Work, *, overwrite: bool, progress: object) -> Report:
        calls.update(asked, out=str(kept.out), overwrite=overwrite)
        return Report(path=digits_archive, content_id="", seconds={"data": 1.0, "teacher": 65.0})

    monkeypatch.chdir(tmp_path)  # where the folder of what a build keeps is made
    monkeypatch.setattr(arrange, "prepare", lambda inputs, recipe, progress: {"inputs": inputs, "recipe": recipe})
    monkeypatch.setattr(library, "carry_out", carry_out)
    monkeypatch.setattr(planning, "plan", lambda setting, progress: COSTS)
    return calls


def test_defaults_are_those_of_the_library(asked: dict[str, Any]) -> None:
    run("digits", "--out", "x.hello")
    assert asked == {"inputs": Inputs(data="digits"), "recipe": Recipe(), "out": "x.hello", "overwrite": False}


def test_every_knob_is_an_option_of_its_own_name() -> None:
    knobs = {field.name for kind in (Inputs, Recipe) for field in fields(kind)} - {"data", "descriptions"}
    options = {option.name for option in command.params if isinstance(option, click.Option)}
    assert options == knobs | {"out", "class_names", "recipe", "only_plan", "overwrite", "quiet"}


def test_options_reach_recipe_and_inputs(asked: dict[str, Any], tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("n01: tench\n")
    mean = ["--teacher-mean", "0.5,0.25,0.125"]
    run("d", "--out", "x", "--no-flip", "--side", "64", *mean, "--class-names", str(names), "--overwrite")
    assert asked["recipe"] == Recipe(flip=False, side=64)
    assert asked["inputs"] == Inputs(data="d", teacher_mean=(0.5, 0.25, 0.125), descriptions={"n01": "tench"})
    assert asked["overwrite"] is True


@pytest.mark.parametrize("order", [1, -1])
def test_options_override_a_recipe_file(order: int, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('side = 64\npreset = "fast"\nflip = false\ncodec = "png"\n')
    given = [["--recipe", str(tmp_path / "r.toml")], ["--preset", "best"], ["--codec", "jpeg"]][::order]
    run("d", "--out", "x", *given[0], *given[1], *given[2])
    assert asked["recipe"] == Recipe(side=64, preset="best", flip=False, codec="jpeg")
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"))
    assert asked["recipe"].preset == "fast"


FILLED = {  # as a recipe file has them, where None is a default that follows from others
    "images_per_class": 10,
    "side": 128,
    "initializer": "patches",
    "factor": 2,
    "codec": "jpeg",
    "quality": 90,
    "flip": False,
    "assistant": "resnet18",
    "teacher_epochs": 12,
    "teacher_stages": (12,),
    "fit_on": "own",
    "fit_views": 160_000,
    "preset": "default",
    "fit_batch_size": 32,
    "fit_learning_rate": 0.004,
    "hard_weight": 0.0,
}
ASSISTED = ("assistant", "teacher_epochs", "teacher_stages", "fit_on", "hard_weight")


@pytest.mark.parametrize(
    ("given", "anew"),
    [
        (["--seed", "1"], []),
        (["--side", "128", "--codec", "jpeg"], []),  # as it was
        (["--teacher", "t.py:net"], []),
        (["--teacher", "train:convnet3"], [*ASSISTED]),
        (["--teacher", "train"], [*ASSISTED]),
        (["--images-per-class", "50"], ["teacher_epochs", "teacher_stages", "fit_views"]),
        (["--teacher-epochs", "14"], ["teacher_stages"]),
        (["--preset", "best"], ["fit_views", "fit_learning_rate"]),
        (["--initializer", "real"], ["factor"]),
        (["--codec", "avif"], ["quality"]),
        (["--assistant", "none"], ["teacher_epochs", "teacher_stages", "fit_on", "hard_weight"]),
        (["--fit-on", "real"], ["hard_weight"]),
        (
            ["--side", "32"],
            ["factor", "quality", *ASSISTED, "fit_batch_size"],
        ),
    ],
)
def test_what_follows_from_an_option_is_not_taken_from_a_recipe_file(
    given: list[str], anew: list[str], asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(to_toml(FILLED))
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), *given)
    assert [name for name in FILLED if getattr(asked["recipe"], name) is None] == [
        name for name in FILLED if name in anew
    ]


@pytest.mark.parametrize(
    ("assistant", "teacher", "anew"),
    [
        ({"assistant": "none", "teacher_stages": (12,), "fit_on": "own"}, "train:resnet18", False),
        ({"assistant": "none", "teacher_stages": (12,), "fit_on": "own"}, "train", False),
        ({"assistant": "none", "teacher_stages": (12,), "fit_on": "own"}, "t.py:net", True),
        ({"assistant": "none", "teacher_stages": None, "fit_on": "real"}, "t.py:net", False),
        ({"assistant": "none", "teacher_stages": None, "fit_on": "real"}, "train:resnet18", True),
    ],
)
def test_assistant_follows_from_the_kind_of_teacher(
    assistant: dict[str, Any], teacher: str, anew: bool, asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(to_toml(FILLED | assistant))
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), "--teacher", teacher)
    assert asked["recipe"] == Recipe(**FILLED | assistant | (dict.fromkeys(ASSISTED) if anew else {}))


def test_no_assistant_for_a_recipe_of_a_trained_teacher_changes_what_follows(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(to_toml(FILLED | {"assistant": "none"}))
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), "--teacher", "t.py:net", "--assistant", "none")
    assert asked["recipe"] == Recipe(**FILLED | dict.fromkeys(ASSISTED) | {"assistant": "none"})


def test_what_stands_in_a_recipe_file_without_its_cause_is_kept(asked: dict[str, Any], tmp_path: Path) -> None:
    written = {"codec": "jpeg", "quality": 70, "fit_batch_size": 16, "hard_weight": 0.5}
    (tmp_path / "r.toml").write_text(to_toml(written))
    given = ["--side", "24", "--fit-on", "real", "--assistant", "none"]
    _, _, err = run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), *given)
    assert asked["recipe"] == Recipe(side=24, fit_on="real", assistant="none", **written)
    assert "Note" not in err


def test_knobs_that_are_not_taken_from_a_recipe_file_are_said_with_the_options_that_are_why(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text(to_toml(FILLED))
    given = ["--preset", "best", "--assistant", "none", "--fit-on", "real", "--seed", "1"]
    _, _, err = run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), "--quiet", *given)
    assert err == (
        f"Note: {tmp_path / 'r.toml'}: worked out anew because of --assistant, --fit-on, --preset: teacher_epochs, "
        "teacher_stages, fit_views, fit_learning_rate, hard_weight; to keep one, give it as an option, too\n"
    )


@pytest.mark.parametrize(
    ("given", "base", "rank"),
    [
        ([], "hello-tiny", 6),
        (["--base", "hello-convnet"], "hello-convnet", None),
        (["--side", "32"], "hello-tiny", None),  # which stays, and with it what its rank is by default
    ],
)
def test_base_model_of_a_recipe_file_is_taken_and_what_was_for_it_is_not_for_another(
    given: list[str], base: str, rank: int | None, asked: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "r.toml").write_text('base = "hello-tiny"\nencoder_rank = 6\nside = 64\n')
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), *given)
    assert (asked["inputs"].base, asked["recipe"].encoder_rank) == (base, rank)


def test_option_beside_what_it_changes_is_kept(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(to_toml(FILLED))
    given = ["--teacher-epochs", "6", "--teacher-stages", "2,3"]
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), *given)
    assert asked["recipe"].teacher_stages == (2, 3)


def test_every_default_that_follows_from_others_is_known_as_such() -> None:
    open_ones = {field.name for field in fields(Recipe) if field.default is None}
    assert open_ones - {"side", "flip"} == set(FOLLOWS)  # these two follow from the images


def test_base_is_embedded_when_asked_and_a_recipe_that_asks_can_be_overridden(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    run("d", "--out", "x", "--embed-base")
    assert asked["recipe"] == Recipe(embed_base=True)
    (tmp_path / "r.toml").write_text("embed_base = true\n")
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"))
    assert asked["recipe"] == Recipe(embed_base=True)
    run("d", "--out", "x", "--recipe", str(tmp_path / "r.toml"), "--no-embed-base")
    assert asked["recipe"] == Recipe()


def test_recipe_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("sied = 32\n")
    status, _, err = run("digits", "--out", str(tmp_path / "x"), "--recipe", str(tmp_path / "r.toml"))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"Error: {tmp_path / 'r.toml'}: unknown key 'sied'")


def test_recipe_of_an_archive_builds_the_same_archive(digits_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    printed = CliRunner().invoke(main, ["inspect", "--recipe", str(digits_archive)], catch_exceptions=False)
    (tmp_path / "r.toml").write_text(printed.stdout)
    out = tmp_path / "x.hello"
    weak = ["--allow-weak-teacher", "--quiet"]
    status, _, err = run(str(few_digits), "--out", str(out), "--recipe", str(tmp_path / "r.toml"), *weak)
    assert (status, out.read_bytes() == digits_archive.read_bytes()) == (0, True), err


def test_build_needs_an_output(asked: dict[str, Any]) -> None:
    status, out, err = run("digits")
    assert (status, out, asked) == (2, "", {})
    assert "Missing option '--out'" in err


def test_plan_is_a_table_and_nothing_is_built(asked: dict[str, Any]) -> None:
    status, out, _ = run("digits", "--plan")
    assert (status, asked) == (0, {})
    assert out.splitlines() == [
        "                   steps     time      memory",
        "Data               1,438     0:04      400 MB",
        "Projector            338     1:00    1,234 MB",
        "in all                       1:04    1,234 MB",
    ]


def test_end_says_bytes_teacher_projector_times_and_the_loop(asked: dict[str, Any], digits_archive: Path) -> None:
    _, out, _ = run("digits", "--out", "x.hello")
    labels = [line.split(" ")[0] for line in out.splitlines()]
    assert [word for word in ("bytes", "beside", "teacher", "projector", "took") if word not in labels] == []
    assert "data 0:01, teacher 1:05" in out
    assert loop(str(digits_archive), 32) in out


@pytest.mark.parametrize("value", ["0.5", "a,b,c", "1,2,3,4"])
def test_mean_that_is_not_three_numbers_is_a_usage_error(value: str) -> None:
    status, _, err = run("digits", "--out", "x", "--teacher-mean", value)
    assert (status, "not three numbers" in err) == (2, True)


def test_class_names_read_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("n01440764: tench\n\nn02102040 :English springer: a dog\n")
    assert read_names(file) == {"n01440764": "tench", "n02102040": "English springer: a dog"}


def test_class_names_read_from_json(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"a: b": "c"}))
    assert read_names(file) == {"a: b": "c"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tench", "names:1: found 'tench', expected `folder: text`"),
        ("a: b\n: c", "names:2: "),
        ('{"a": 1}', "'a' needs a text, found 1"),
        ('{"a"', "not a JSON object"),
        ("a: b\na: c", "names:2: 'a' appears twice"),
    ],
)
def test_class_names_of_another_form_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_names(tmp_path / "names")


def test_missing_class_names_are_refused(tmp_path: Path) -> None:
    status, _, err = run("digits", "--out", str(tmp_path / "x"), "--class-names", str(tmp_path / "none"))
    assert (status, err) == (1, f"Error: {tmp_path / 'none'}: class names cannot be read: No such file or directory\n")


def test_number_out_of_range_is_told_by_its_option_and_the_range(tmp_path: Path) -> None:
    status, _, err = run("digits", "--out", str(tmp_path / "x.hello"), "--images-per-class", "0")
    assert status == 2
    assert err.endswith("Error: Invalid value for '--images-per-class': 0 is not in the range 1<=x<=100000.\n")


BAD = {
    "missing folder": (["{tmp}/none", "--out", "{tmp}/x.hello"], "{tmp}/none"),
    "no class folders": (["{tmp}/empty", "--out", "{tmp}/x.hello"], "{tmp}/empty"),
    "output exists": (["digits", "--out", "{tmp}/there.hello"], "--overwrite"),
    "output folder missing": (["digits", "--out", "{tmp}/none/x.hello"], "{tmp}/none"),
    "knob that is no number": (["digits", "--out", "{tmp}/x.hello", "--hard-weight", "nan"], "hard_weight is nan"),
    "unknown teacher": (["digits", "--out", "{tmp}/x.hello", "--teacher", "train:convnot"], "convnot"),
    "unknown assistant": (
        ["digits", "--out", "{tmp}/x.hello", "--teacher", "{tmp}/none.py:net", "--assistant", "convnot"],
        "'convnot' is unknown",
    ),
    "unknown base": (["digits", "--out", "{tmp}/x.hello", "--base", "RN0/none"], "RN0/none"),
    "too few images": (["digits", "--out", "{tmp}/x.hello", "--images-per-class", "5000"], "--images-per-class"),
    "unknown device": (["digits", "--out", "{tmp}/x.hello", "--device", "abacus"], "abacus"),
    "no class description": (["digits", "--out", "{tmp}/x.hello", "--class-names", "{tmp}/names"], "none for 1, 2, "),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_before_any_work_and_leaves_the_folder_as_it_was(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: object, **knobs: object) -> None:
        raise AssertionError("refuse before the images are read and the teacher learns")

    monkeypatch.setattr(Pixels, "check", late)
    monkeypatch.setattr(training, "train", late)
    (tmp_path / "empty").mkdir()
    (tmp_path / "names").write_text("0: zero")
    (tmp_path / "there.hello").write_text("mine")
    arguments, words = BAD[what]
    status, out, err = run("--quiet", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")
    assert words.format(tmp=tmp_path) in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "names", "there.hello"]
    assert (tmp_path / "there.hello").read_text() == "mine"


def test_output_folder_that_is_not_writable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write anywhere
    status, _, err = run("digits", "--out", str(tmp_path / "x.hello"))
    assert (status, "not writable" in err) == (1, True)


def test_loop_is_python_whatever_the_file_is_called() -> None:
    compile(loop('it\'s \\ "mine".hello', 32), "loop", "exec")


def test_loop_of_an_archive_on_the_users_own_base_brings_it(digits_archive: Path, tmp_path: Path) -> None:
    with Archive.open(digits_archive) as old:
        header = replace(old.header, projector=dict(old.header.projector or {}) | {"base": "given:mine"})
        write(tmp_path / "mine.hello", header, {section.name: old.read(section.name) for section in header.sections})
    own, public = (
        made(Report(path=path, content_id="", seconds={}), "local-dir:here/mine")
        for path in (tmp_path / "mine.hello", digits_archive)
    )
    assert 'mine.hello", base="local-dir:here/mine", temperature=4)\n' in own
    assert 'digits.hello", temperature=4)\n' in public


def test_control_c_leaves_no_file_and_status_130(tmp_path: Path) -> None:
    hellods = shutil.which("hellods", path=str(Path(sys.executable).parent))
    assert hellods is not None
    arguments = [hellods, "build", "digits", "--out", "x.hello", "--teacher-epochs", "1000"]

    def interruptible() -> None:  # which what runs in the background is not
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        arguments, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("Teacher: "):  # the first step that takes long
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().splitlines()[-1] == "Interrupted."
    assert process.returncode == 130
    assert {path.name for path in tmp_path.iterdir()} <= {".x.hello.build"}  # from which the same command goes on
