"""What tests of every room share: the real data, and one small archive made from real images."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)  # a busy machine is slow, and no run is luckier
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and trained weights; HELLODS_SHARED says where, when it is not beside the project."""
    folder = Path(os.environ.get("HELLODS_SHARED") or ROOT.parent / "shared").resolve()
    if not (folder / "data" / "prepare.py").is_file():
        message = f"{folder} holds no real data: set HELLODS_SHARED to the folder that does"
        if os.environ.get("HELLODS_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return folder


def prepared(name: str, shared: Path, temporary: pytest.TempPathFactory) -> Path:
    folder = temporary.mktemp("data")
    subprocess.run(
        [sys.executable, shared / "data" / "prepare.py", folder, name], check=True, stdout=subprocess.DEVNULL
    )
    return folder / name


@pytest.fixture(scope="session")
def cifar10(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 20,000 and val/ with 10,000 images of 32 px in 10 class folders."""
    return prepared("cifar10", shared, tmp_path_factory)


@pytest.fixture(scope="session")
def cifar100(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 30,000 and val/ with 10,000 images of 32 px in 100 class folders."""
    return prepared("cifar100", shared, tmp_path_factory)


@pytest.fixture(scope="session")
def imagenette(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 5,000 and val/ with 1,000 photographs of 224 px in 10 class folders."""
    return prepared("imagenette224", shared, tmp_path_factory)


@pytest.fixture(scope="session")
def digits_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive that was really built, of 2 digits a class: a weak teacher, a projector hardly fitted."""
    from hellods import Inputs, Recipe, build

    path = tmp_path_factory.mktemp("built") / "digits.hello"
    recipe = Recipe(images_per_class=2, candidates=20, teacher_epochs=1, fit_images=256)
    build(Inputs(data="digits", allow_weak_teacher=True), recipe, path)
    return path
