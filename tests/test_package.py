"""The package as a whole: its layers, what it ships, what it exports."""

import ast
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hellods

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted([*ROOT.glob("hellods/**/*.py"), *ROOT.glob("cli/**/*.py")])

# A room may import rooms of a lower level, and itself. `hellods` is what users import: the CLI may, the rooms may not.
LEVELS = {
    "hellods.errors": 0,
    "hellods.record": 0,
    "hellods.knobs": 0,
    "hellods.progress": 0,
    "hellods.forecast": 0,
    "hellods.__version__": 0,
    "hellods.device": 0,
    "hellods.threads": 0,
    "hellods.digests": 0,
    "hellods.nets": 0,  # a student's network is also a base model's tower
    "hellods.format": 1,
    "hellods.views": 1,
    "hellods.labels": 1,
    "hellods.train": 1,
    "hellods.probe": 2,
    "hellods.display": 2,
    "hellods.sources": 2,
    "hellods.teachers": 3,
    "hellods.data": 4,
    "hellods.distill": 4,
    "hellods.evaluate": 5,
    "hellods": 6,
    "cli": 7,
}
NOT_HERE = {  # room: what none of its modules may import, not even inside a function
    "hellods.format": {"torch", "torchvision", "click", "rich"},
    "hellods.display": {"torch", "torchvision"},
    "hellods": {"click", "rich"},
    "cli": {"torch", "torchvision", "numpy", "PIL"},
}


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a module imports, wherever in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def room(module: str) -> str | None:
    """Return the longest name in LEVELS that holds a module, `None` for other people's modules."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in LEVELS), None)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_downward(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert own is not None, "a module outside all rooms: give its room a level"
    if path == ROOT / "hellods/__init__.py":
        return
    upward = [name for name in imports(path) if (to := room(name)) and to != own and LEVELS[to] >= max(LEVELS[own], 1)]
    assert upward == []


@pytest.mark.parametrize("where", NOT_HERE)
def test_heavy_and_drawing_libraries_stay_in_their_rooms(where: str) -> None:
    paths = [path for path in CODE if path.is_relative_to(ROOT / where.replace(".", "/"))]
    found = {(path.name, name) for path in paths for name in imports(path) if name.split(".")[0] in NOT_HERE[where]}
    assert found == set()


@pytest.mark.parametrize(
    "module", ["hellods", "hellods_cli", "hellods.distill.recipe", "hellods.display.card", "hellods.format.archive"]
)
def test_light_modules_import_without_torch(module: str) -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", f"import sys, {module}; sys.exit(bool({heavy}))"], check=False)
    assert run.returncode == 0


def test_public_names_are_these() -> None:
    assert hellods.__all__ == [
        "Archive",
        "DigestError",
        "FormatError",
        "HelloDataset",
        "HelloError",
        "HelloLoader",
        "Inputs",
        "LabelError",
        "OptionError",
        "Recipe",
        "SourceError",
        "UnsupportedError",
        "Views",
        "build",
    ]


@pytest.mark.parametrize("name", hellods.__all__)
def test_public_name_resolves_and_says_what_it_is(name: str) -> None:
    assert getattr(hellods, name).__doc__


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Archives'"):
        _ = hellods.Archives


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the wheel and the source distribution, built from a copy without what Git ignores."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*", "*.hello")
    for path in ROOT.iterdir():
        if path.name in ("hellods", "cli", "tests"):
            shutil.copytree(path, source / path.name, ignore=leave)
        elif path.suffix in (".toml", ".md", ".in") or path.name == "LICENSE":
            shutil.copy(path, source)
    for kind in ("sdist", "wheel"):
        backend = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        subprocess.run([sys.executable, "-c", backend, out], cwd=source, check=True, capture_output=True)
    return out


def test_wheel_holds_every_module_and_asset_and_nothing_else(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = {"hellods": "hellods", "cli": "hellods_cli"}
    expected = {
        str(Path(import_name, path.relative_to(ROOT / folder)))
        for folder, import_name in folders.items()
        for path in ROOT.glob(f"{folder}/**/*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected


def test_source_distribution_holds_tests_and_changelog(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/test_package.py", "tests/conftest.py", "CHANGELOG.md", "cli/__init__.py"} <= names


def test_package_list_is_the_folders() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [path.parent.relative_to(ROOT) for path in CODE if path.name == "__init__.py"]
    assert sorted(listed) == sorted(".".join(path.parts).replace("cli", "hellods_cli") for path in found)
