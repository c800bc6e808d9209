"""The README does what it says: its commands run, its code trains, its tables are the measured numbers."""

import importlib.util
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from torch import Tensor, nn

from hellods import HelloLoader
from hellods.evaluate.arms import ARMS
from hellods_cli import main
from hellods_cli.loop import loop

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
QUICK = ["--fit-views", "256", "--candidates", "20"]  # appended to the README's builds, which take minutes


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """Return every command of the README, as words."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def run(words: list[str]) -> None:
    result = CliRunner().invoke(main, words[1:], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


def builds(data: str) -> list[str]:
    (words,) = (words for words in commands() if words[:3] == ["hellods", "build", data])
    return words


def shortened(code: str) -> str:
    """Return the README's code with one epoch of each training, and a build that is soon done."""
    code = re.sub(r"(range\(|max_epochs=)100", r"\g<1>1", code)
    code = code.replace('Inputs(data="digits"', 'Inputs(data="digits", allow_weak_teacher=True')
    return code.replace("images_per_class=1)", "images_per_class=1, fit_views=64, candidates=20)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a reader of the README works."""
    path = tmp_path_factory.mktemp("reader")

    def refuse(*arguments: object) -> None:
        raise AssertionError("it needs no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(socket, "getaddrinfo", refuse)
        run([*builds("digits"), "--quiet", *QUICK, "--teacher-epochs", "1", "--allow-weak-teacher"])
        yield path


@pytest.mark.slow
def test_first_build_as_written_takes_a_few_minutes(tmp_path: Path) -> None:
    words = builds("digits")
    program = str(Path(sys.executable).with_name(words[0]))
    # In a process of its own, with all cores: the tests keep to one thread.
    subprocess.run([program, *words[1:]], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "digits.hello").exists()


def test_commands_after_the_first_build_run(folder: Path) -> None:
    looks = [words for words in commands() if words[0] == "hellods" and words[1] != "build"]
    assert [words[1] for words in looks] == ["inspect", "inspect", "verify", "evaluate"]
    for words in looks[:-1]:
        run(words)
    run([*looks[-1], "--epochs", "1", "--seeds", "1", "--arms", "hello,hard", "--allow-weak-teacher", "--quiet"])
    assert (folder / "report" / "report.html").exists()


def test_build_with_the_readers_own_folder_and_teacher_runs(folder: Path, shared: Path, cifar10: Path) -> None:
    words = builds("photos/")
    weights = shared / "data" / "teachers"
    for split, first in (("train", 30), ("val", 20)):
        for label in sorted(path.name for path in (cifar10 / split).iterdir()):
            (folder / "photos" / split / label).mkdir(parents=True)
            for image in sorted((cifar10 / split / label).iterdir())[:first]:
                shutil.copy(image, folder / "photos" / split / label)
    shutil.copy(weights / "cifar10_resnet20.safetensors", folder / "my_network.safetensors")
    (folder / "my_network.py").write_text(
        (weights / "cifar_resnet.py").read_text() + "\n\nmy_network = cifar10_resnet20\n"
    )
    run([*words, "--quiet", *QUICK])
    assert (folder / "photos.hello").exists()


def test_loop_runs_two_epochs_that_see_different_views(folder: Path) -> None:
    code = blocks("python")[0]
    epochs: list[set[bytes]] = [set()]

    def see(network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if network.training and isinstance(network, nn.Sequential) and arguments[0].shape[1] == 3:
            epochs[-1].update(image.numpy().tobytes() for image in arguments[0])

    def end_of_epoch(text: str) -> None:
        epochs.append(set())

    hook = nn.modules.module.register_module_forward_pre_hook(see)
    try:
        exec(code.replace("range(100)", "range(2)"), {"print": end_of_epoch})
    finally:
        hook.remove()
    first, second, _ = epochs
    assert len(first) == len(second) == 100
    assert first.isdisjoint(second)


@pytest.mark.filterwarnings("default")  # Lightning's own, and its advice
def test_all_other_code_goes_on_from_the_loop(folder: Path) -> None:
    pytest.importorskip("lightning")
    names: dict[str, object] = {}
    seen, batches = [], {}
    hook = nn.modules.module.register_module_forward_hook(lambda network, *_: seen.append(network))
    try:
        for code in blocks("python"):
            seen.clear()
            exec(shortened(code), names)
            batches[code] = seen.count(names["model"])
    finally:
        hook.remove()
    assert isinstance(names["loader"], HelloLoader)
    assert (folder / "one.hello").exists()
    assert [count for code, count in batches.items() if "lightning" in code] == [2]  # the batches of an epoch


def test_loop_is_the_one_that_build_prints() -> None:
    assert blocks("python")[0] == loop("digits.hello", 32)


def test_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = ",".join(re.findall(r'pip install "\.\[([\w,]+)\]"', README)).split(",")
    assert sorted(named) == ["demo", "frameworks", "report", "test"]
    assert set(named) <= set(extras)


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w./]+)`|\]\((\w[\w./]*)\)", README)
    paths = {path or link for path, link in named}
    assert {"tests/benchmarks/README.md", "tests/benchmarks/LOG.md"} <= paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


RESULTS = ROOT / "tests" / "benchmarks" / "results"


@pytest.fixture
def tables() -> ModuleType:
    return benchmark("tables")


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_made_from_the_measured_numbers(tables: ModuleType) -> None:
    for document in tables.DOCUMENTS:
        assert tables.filled(document.read_text()) == document.read_text()


def test_reports_have_the_arms_and_seeds_that_their_commands_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")  # scripts find each other there
    for name, measurement in benchmark("evaluations").MEASUREMENTS.items():
        report = json.loads((RESULTS / f"evaluate_{name.replace('-', '_')}.json").read_text())
        (archive,) = report["archives"]
        asked = [arm for arm in ARMS if arm in measurement.arms or arm.partition("-")[0] in measurement.arms]
        assert list(archive["arms"]) == asked
        assert {len(arm["accuracy"]["last"]["values"]) for arm in archive["arms"].values()} == {measurement.seeds}
