"""`hellods evaluate` passes on what it is told, and says what became of it in a table."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hellods.evaluate import evaluate as library
from hellods.evaluate.arms import ARMS
from hellods.evaluate.presets import PRESETS, Protocol
from hellods.evaluate.question import Question
from hellods_cli import main
from hellods_cli.evaluate import command, table


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["evaluate", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library's evaluate is called with, in place of evaluating."""
    calls: dict[str, Any] = {}

    def evaluate(paths: tuple[str, ...], question: Question, out: str, **others: Any) -> dict[str, Any]:
        calls.update(paths=paths, question=question, out=out, overwrite=others["overwrite"])
        return {"archives": []}

    monkeypatch.setattr(library, "evaluate", evaluate)
    monkeypatch.setattr("hellods_cli.evaluate.Archive.open", lambda _: SimpleNamespace(close=lambda: None))
    return calls


def test_defaults_are_those_of_the_library_and_all_arms(asked: dict[str, Any]) -> None:
    run("x.hello", "y.hello", "--data", "d")
    kinds = ("hello", "teacher", "hard", "random", "shipped", "stored", "full")
    question = Question(data="d", arms=kinds)
    assert asked == {"paths": ("x.hello", "y.hello"), "question": question, "out": "report", "overwrite": False}


def test_every_field_is_an_option_of_its_own_name() -> None:
    knobs = {field.name for kind in (Question, Protocol) for field in fields(kind)} - {"protocol"}
    options = {option.name for option in command.params if isinstance(option, click.Option)}
    assert options == knobs | {"preset", "out", "planned", "overwrite", "quiet"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_passed_on(name: str, asked: dict[str, Any]) -> None:
    run("x", "--data", "d", "--preset", name)
    assert asked["question"].protocol == PRESETS[name]


def test_options_change_the_preset_and_nothing_else_of_it(asked: dict[str, Any]) -> None:
    run("x", "--data", "d", "--preset", "hello", "--student", "resnet18", "--epochs", "5", "--learning-rate", "0.01")
    assert asked["question"].protocol == replace(PRESETS["hello"], student="resnet18", epochs=5, learning_rate=0.01)


def test_options_reach_the_question(asked: dict[str, Any]) -> None:
    mean = ("--teacher-mean", "0.5,0.25,0.125", "--allow-weak-teacher", "--precision", "bf16")
    run(
        "x", "--data", "d", "--arms", "hello, hard", "--seeds", "5", "--teacher", "train:convnet3", *mean, "--overwrite"
    )
    assert asked["question"] == Question(
        data="d", arms=("hello", "hard"), seeds=5, teacher="train:convnet3", teacher_mean=(0.5, 0.25, 0.125),
        allow_weak_teacher=True, precision="bf16",
    )  # fmt: skip
    assert asked["overwrite"] is True


def test_file_that_is_none_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    code = f"import sys; sys.argv = ['hellods', 'evaluate', {str(tmp_path / 'none.hello')!r}, '--data', 'd']\n"
    code += "from hellods_cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr == f"Error: {tmp_path / 'none.hello'}: no such file\n"


def test_help_imports_no_torch_and_names_every_arm() -> None:
    code = "import sys; sys.argv = ['hellods', 'evaluate', '--help']\nfrom hellods_cli import main\n"
    code += "try:\n    main()\nfinally:\n    assert not {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"({name.partition('-')[0]}" in found.stdout for name in ARMS)


BAD = {
    "no such file": (["{tmp}/none.hello", "--data", "d", "--arms", "hard"], "{tmp}/none.hello: no such file"),
    "unknown arm": (["{archive}", "--data", "d", "--arms", "hello,hrad"], "arm 'hrad' is unknown: choose from hello, "),
    "unknown student": (["{archive}", "--data", "{data}", "--student", "convnot"], "network 'convnot' is unknown"),
    "unknown device": (["{archive}", "--data", "d", "--device", "abacus"], "device 'abacus' cannot be used here"),
    "no data": (["{archive}", "--data", "{tmp}/none"], "{tmp}/none: no such folder"),
    "knob that is no number": (["{archive}", "--data", "d", "--temperature", "nan"], "temperature is nan, expected"),
    "at odds": (["{archive}", "--data", "d", "--preset", "hello", "--temperature", "4"], "belongs to the loss kl"),
    "weights alone": (["{archive}", "--data", "d", "--teacher-weights", "w"], "--teacher-weights needs --teacher"),
    "mean alone": (["{archive}", "--data", "d", "--teacher-mean", "nan,0,0"], "--teacher-std need --teacher"),
    "std alone": (["{archive}", "--data", "d", "--teacher-std", "1,1,1"], "--teacher-std need --teacher"),
    "unknown teacher": (["{archive}", "--data", "{data}", "--teacher", "train:convnot"], "'convnot' is unknown"),
    "no such teacher": (["{archive}", "--data", "{data}", "--teacher", "t.py:t"], "t.py: no such file"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_and_leaves_no_folder(
    what: str, digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    arguments, words = BAD[what]
    places = {"tmp": tmp_path, "archive": digits_archive, "data": few_digits}
    filled = [argument.format(**places) for argument in arguments]
    status, out, err = run("--quiet", *filled, "--out", str(tmp_path / "report"))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: ")
    assert words.format(**places) in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["x"], ["--data", "d"], ["x", "--data", "d", "--preset", "best"], ["x", "--data", "d", "--loss", "l1"]],
)
def test_what_is_missing_or_no_choice_is_a_usage_error(arguments: list[str]) -> None:
    assert run(*arguments)[0] == 2


@pytest.fixture
def _plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without plots."""
    monkeypatch.setitem(sys.modules, "hellods.display.page", SimpleNamespace(page=lambda report: "<p>"))


@pytest.mark.usefixtures("_plain_page")
def test_table_has_an_arm_a_line_and_the_scores(digits_archive: Path, few_digits: Path, tmp_path: Path) -> None:
    asked = ("--data", str(few_digits), "--epochs", "1", "--seeds", "2", "--arms", "hello,hard,random,full", "--quiet")
    status, out, err = run(str(digits_archive), *asked, "--out", str(tmp_path / "report"))
    lines = out.splitlines()
    assert (status, lines[0]) == (0, "digits.hello: 20 images of 32 px; convnet3, 1 epochs")
    assert [line.split()[0] for line in lines[3:7]] == ["hello", "hard", "random-hello", "full"]
    assert all(" ± " in line for line in lines[3:7])
    assert any(line.startswith("HLR ") and "; IOR " in line for line in lines)
    assert "beside it the base model hello-convnet, " in out
    assert lines[-1] == f"The whole report is in {tmp_path / 'report'}"
    assert max(map(len, lines[:-1])) <= 80
    assert "arm random-teacher is left out: needs the teacher: give --teacher" in err
    written = ["report.html", "report.json", "report.md", "runs"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == written


def test_plan_says_what_would_be_trained_and_how_long_and_writes_nothing(
    digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    asked = ("--data", str(few_digits), "--epochs", "2", "--arms", "hard,teacher", "--quiet")
    status, out, _ = run(str(digits_archive), *asked, "--plan", "--out", str(tmp_path / "report"))
    lines = out.splitlines()
    assert (status, lines[0]) == (0, "digits.hello: convnet3, 2 epochs, batches of 10")
    assert lines[2].split()[:4] == ["hard", "3", "to", "train"]
    assert lines[3].startswith(
        "teacher         left out: needs the teacher: give --teacher (the archive was made with "
    )
    assert lines[-1].startswith("in all ")
    assert list(tmp_path.iterdir()) == []


def test_plan_has_a_line_for_the_teacher_that_is_to_be_trained(
    digits_archive: Path, few_digits: Path, tmp_path: Path
) -> None:
    asked = ("--data", str(few_digits), "--epochs", "2", "--arms", "teacher", "--teacher", "train:convnet3", "--quiet")
    status, out, _ = run(str(digits_archive), *asked, "--plan", "--out", str(tmp_path / "report"))
    lines = out.splitlines()
    assert (status, lines[0].split()[:5]) == (0, ["train:convnet3", "1", "to", "train,", "the"])
    assert lines[4].split()[:4] == ["teacher", "3", "to", "train"]
    assert list(tmp_path.iterdir()) == []


def archive(**changes: Any) -> dict[str, Any]:
    """Return what a report says of an archive with one arm, as far as a table needs it."""
    accuracy = {"last": {"mean": 0.5, "std": None}, "best": {"mean": 0.625}}
    arm = {"accuracy": accuracy, "bytes": {"images": 1000, "labels": 200, "rest": 34}, "fidelity": {"agreement": 0.75}}
    facts = {"file": "x.hello", "images": 10_000, "side": 32, "protocol": {"student": "convnet3", "epochs": 3}}
    return (
        facts
        | {"arms": {"hello": arm}, "scores": {"hlr": None, "ior_hello": None, "ior_teacher": None}, "base": None}
        | changes
    )


def test_a_line_is_last_best_bytes_and_agreement() -> None:
    lines = table(archive()).splitlines()
    assert lines[0] == "x.hello: 10,000 images of 32 px; convnet3, 3 epochs"
    assert lines[-1].split() == ["hello", "50.0", "62.5", "1,234", "75.0"]


def test_hostile_names_cannot_steer_the_terminal() -> None:
    base = {"name": "b\x1b[2J", "bytes": 1}
    assert "\x1b" not in table(archive(file="x\x1b[2J", base=base))
