"""What the loading benchmarks share: the same streams of real images as archive, folder, shards and table; turns.

WORK keeps what is made here, so only the first run waits for it.
"""

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from common import record, shared
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save

from hellods.device import describe_device
from hellods.distill.recipe import RANK, Recipe
from hellods.format.archive import Archive, write
from hellods.format.header import Header, Images
from hellods.format.streams import image_sections
from hellods.labels.config import Precision
from hellods.labels.projector import Projector
from hellods.probe import make_probe
from hellods.record import to_json
from hellods.teachers.scale import MEAN, STD
from hellods.views.rule import Views

SIDE = 224
VIEWS = Views(size=SIDE)  # torchvision's RandomResizedCrop and RandomHorizontalFlip
# AVIF at libaom's fastest is encoded ten times as fast as by default, and decoded as fast.
ENCODERS: Mapping[str, dict[str, Any]] = {"jpeg": {"quality": 90}, "avif": {"quality": 75, "speed": 10}}

T = TypeVar("T")


def archive(
    work: Path, count: int, codec: str = "jpeg", base: str = "hello-tiny", precision: Precision = "fp32"
) -> Path:
    """Return an archive of that many images at 224 px, their classes by turns, with a projector on that base model."""
    path = work / f"{codec}-{count}-{Path(base).name}-{precision}.hello"
    if path.exists():
        return path
    work.mkdir(parents=True, exist_ok=True)
    prepare = [sys.executable, str(shared() / "data" / "prepare.py"), str(work), "imagenette224"]
    subprocess.run(prepare, check=True)
    classes = tuple(sorted(place.name for place in (work / "imagenette224" / "train").iterdir()))
    files = [sorted((work / "imagenette224").glob(f"*/{name}/*")) for name in classes]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures = (varied(files[index % len(classes)], index // len(classes)) for index in range(count))
        streams = list(pool.map(lambda pixels: encoded(pixels, codec), pictures))
    recipe = Recipe()
    ranks = (RANK, recipe.head_rank)
    projector = Projector.create(base, classes, template=recipe.template, ranks=ranks, seed=0, precision=precision)
    header = Header(
        name=path.stem,
        created_by="tests/benchmarks/loading_data.py",
        source={"name": "Imagenette"},
        classes=classes,
        images=Images(count=count, codec=codec, height=SIDE, width=SIDE, mean=MEAN, std=STD),
        views=to_json(VIEWS),
        projector=to_json(projector.config),
        teacher={},
        recipe={},
        metrics={},
    )
    seen = torch.from_numpy(np.zeros((count, 3, SIDE, SIDE), np.uint8))  # the probe looks at eight
    for index in (torch.arange(8) * count // 8).tolist():
        seen[index] = torch.tensor(np.asarray(Image.open(io.BytesIO(streams[index])))).permute(2, 0, 1)
    state = projector.state()
    projector.merge()  # the probe holds answers in the precision of a reader's labels
    sections = image_sections(streams) | {
        "targets": (np.arange(count) % len(classes)).astype("<u4").tobytes(),
        "projector": save(state),
        "probe": save(vars(make_probe(projector.label, seen, VIEWS))),
    }
    write(path, header, sections)
    return path


def varied(files: list[Path], number: int) -> NDArray[np.uint8]:
    """Return the pixels of one of the files; each time around, others of the same pictures."""
    around, place = divmod(number, len(files))
    pixels = np.asarray(Image.open(files[place]).convert("RGB"))
    return np.roll(pixels[:, ::-1] if around % 2 else pixels, 8 * (around // 2), axis=1)


def encoded(pixels: NDArray[np.uint8], codec: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, codec, **ENCODERS[codec])
    return buffer.getvalue()


def streams(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, class and stream of each image of an archive."""
    with Archive.open(path) as opened:
        for number, target in enumerate(opened.targets().tolist()):
            yield number, target, opened.image(number)


def folder(path: Path) -> Path:
    """Return the images of an archive as files, in a folder for each class."""

    def fill(place: Path) -> None:
        for number, target, stream in streams(path):
            (place / f"{target:03}").mkdir(exist_ok=True)
            (place / f"{target:03}" / f"{number:06}{suffix(path)}").write_bytes(stream)

    return made(path.with_suffix(".folder"), fill)


def shards(path: Path, count: int = 16) -> list[str]:
    """Return the images of an archive as WebDataset's tar files."""

    def fill(place: Path) -> None:
        files = [tarfile.open(place / f"{number:02}.tar", "w") for number in range(count)]  # noqa: SIM115
        for number, target, stream in streams(path):
            for name, data in ((suffix(path), stream), (".cls", b"%d" % target)):
                entry = tarfile.TarInfo(f"{number:06}{name}")
                entry.size = len(data)
                files[number % count].addfile(entry, io.BytesIO(data))
        for file in files:
            file.close()

    return sorted(map(str, made(path.with_suffix(".shards"), fill).iterdir()))


def table(path: Path) -> Path:
    """Return the images of an archive as a table of Hugging Face datasets."""
    import datasets

    def rows() -> Iterator[dict[str, Any]]:
        for _, target, stream in streams(path):
            yield {"image": {"bytes": stream, "path": None}, "label": target}

    def fill(place: Path) -> None:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        datasets.Dataset.from_list(list(rows()), features=features).save_to_disk(place)

    return made(path.with_suffix(".table"), fill)


def suffix(path: Path) -> str:
    return "." + path.stem.partition("-")[0]


def made(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder that `fill` filled, now or in another run."""
    if not target.exists():
        beginning = target.with_name(f"{target.name}.part")
        beginning.mkdir()
        fill(beginning)
        beginning.rename(target)
    return target


def alternate(ways: Mapping[str, Callable[[], T]], turns: int) -> dict[str, list[T]]:
    """Return what each way measures, taken by turns; each turn begins with another."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            print(f"turn {turn + 1} of {turns}: {name}", file=sys.stderr, flush=True)
            found[name].append(ways[name]())
    return found


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Return how long a call takes, by as many as fit in half a second."""
    call()
    wait(device)
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < 0.5:
        call()
        wait(device)
        calls += 1
    return (time.perf_counter() - start) / calls


def wait(device: torch.device) -> None:
    """Return when a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the options of every loading benchmark."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cpu")
    options.add_argument("--turns", type=int, default=3)
    return options


def keeps(options: argparse.ArgumentParser) -> None:
    """Add the option of what is kept from one run to the next."""
    options.add_argument("--folder", type=Path, required=True, metavar="WORK", help="keeps prepared images")


def record_on(device: torch.device, name: str, result: dict[str, Any], *packages: str) -> None:
    """Write results/NAME.json, or NAME_cuda.json, with device, cores and those packages beside what `record` adds."""
    versions = {package: version(package) for package in ("pillow", *packages)}
    facts = {"device": describe_device(device), "cores": os.cpu_count(), "other_versions": versions}
    record(name if device.type == "cpu" else f"{name}_{device.type}", facts | result)
