"""What tests of every room share: the real data, and one small archive made from real images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)  # a busy machine is slow, and no run is luckier
settings.load_profile("steady")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Where other processes hold the cores, torch's threads wait for each other many times as long as they work."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _few_views_are_measured() -> None:
    """A build of few images spends most of its time on the 2,000 views that it is measured on."""
    from hellods.distill import measure

    measure.SAMPLE = 200


@pytest.fixture(scope="session", autouse=True)
def _apart() -> None:
    """Before the first backward pass, at which torch counts its devices."""
    from .apart import register

    register()


@pytest.fixture(params=["apart", pytest.param("cuda", marks=pytest.mark.gpu)])
def accelerator(request: pytest.FixtureRequest) -> str:
    """A device that is not the CPU: a GPU, or one that only computes there (apart.py)."""
    return f"{request.param}:0"


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
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ with 15 and val/ with 5 of scikit-learn's handwritten digits of each class, as PNG of 32 px."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder, data = tmp_path_factory.mktemp("few") / "few_digits", load_digits()
    for label in range(10):
        for number, pixels in enumerate(data.images[data.target == label][:20]):
            file = folder / ("val" if number % 4 == 3 else "train") / str(label) / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255 / 16).astype("uint8")).resize((32, 32)).save(file)
    return folder


@pytest.fixture(scope="session")
def digits_archive(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive that was really built: 2 digits a class, a weak teacher, a projector hardly fitted."""
    from hellods import Inputs, Recipe, build

    path = tmp_path_factory.mktemp("built") / "digits.hello"
    recipe = Recipe(images_per_class=2, candidates=15, teacher_epochs=2, fit_views=256)
    build(Inputs(data=str(few_digits), allow_weak_teacher=True), recipe, out=path)
    return path


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `local-dir:` with a small CLIP of random weights in float32, and QuickGELU."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    facts = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**facts)  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("base") / "small"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": facts, "preprocess_cfg": {}}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def image_base(small_base: Path, tmp_path: Path) -> Path:
    """A folder for `local-dir:` with the image tower of the small CLIP, and no word of a text tower."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "image"
    folder.mkdir()
    facts = json.loads((small_base / "open_clip_config.json").read_text())
    del facts["model_cfg"]["text_cfg"]
    (folder / "open_clip_config.json").write_text(json.dumps(facts))
    held = load_file(small_base / "open_clip_model.safetensors")
    alone = {name: value for name, value in held.items() if name.startswith("visual.")}
    save_file(alone, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def embedded_archive(few_digits: Path, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive that holds its base model, one that only the user has."""
    from hellods import Inputs, Recipe, build

    path = tmp_path_factory.mktemp("embedded") / "digits.hello"
    recipe = Recipe(images_per_class=1, candidates=15, teacher_epochs=1, fit_views=128, embed_base=True)
    build(Inputs(data=str(few_digits), base=f"local-dir:{small_base}", allow_weak_teacher=True), recipe, out=path)
    return path
