"""Build an archive from real images and record its bytes by part, its agreement and the seconds by stage.

    python tests/benchmarks/builds.py digits --out digits.hello
    python tests/benchmarks/builds.py cifar10 --out c10.hello
    python tests/benchmarks/builds.py cifar100 --out c100.hello
    python tests/benchmarks/builds.py imagenette --out imagenette.hello

Digits are those of the README's command; the others have the teachers of the shared data.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import record, shared

from hellods.distill.build import build
from hellods.distill.recipe import Inputs, Recipe
from hellods.format.archive import Archive
from hellods.labels.config import OWN
from hellods.labels.models import ASSETS

SETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenette": "imagenette224"}  # as prepare.py names them
SYNSETS = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def inputs(name: str, folder: Path) -> Inputs:
    """Return the real images, the trained teacher and the base of one build."""
    if name == "digits":
        return Inputs(data="digits")
    data = shared() / "data"
    weights = data / "teachers"
    if name == "cifar10":
        return Inputs(
            data=str(folder / "cifar10"),
            teacher=f"{weights / 'cifar_resnet.py'}:cifar10_resnet20",
            teacher_weights=str(weights / "cifar10_resnet20.safetensors"),
        )
    if name == "cifar100":
        return Inputs(
            data=str(folder / "cifar100"),
            teacher=f"{weights / 'cifar_resnet.py'}:cifar100_resnet56",
            teacher_weights=str(weights / "cifar100_resnet56.safetensors"),
            teacher_mean=(0.5070, 0.4865, 0.4409),
            teacher_std=(0.2673, 0.2564, 0.2761),
        )
    return Inputs(
        data=str(folder / "imagenette224"),
        base=f"local-dir:{data / 'clip' / 'mobilenetv2-in1k'}",
        teacher=f"{weights / 'imagenet_mobilenet.py'}:mobilenetv1_075",
        teacher_weights=str(weights / "imagenette_mobilenetv1_075.safetensors"),
        teacher_mean=(0.5, 0.5, 0.5),
        teacher_std=(0.5, 0.5, 0.5),
        descriptions=SYNSETS,
    )


def facts(path: Path, inputs: Inputs, seconds: dict[str, float] | None) -> dict[str, Any]:
    """Return what a table shows of a build; None: it was not timed here."""
    with Archive.open(path) as archive:
        header, content_id = archive.header, archive.content_id
    lengths = {section.name: section.length for section in header.sections}
    whole = path.stat().st_size
    shown = lengths["images"], lengths["projector"]
    base = header.projector["base"]
    folder = ASSETS / base if base in OWN else Path((inputs.base or "").removeprefix("local-dir:"))
    return {
        "real_images": header.source["images"],
        "images": header.images.count,
        "classes": len(header.classes),
        "side": header.images.height,
        "base": header.projector["base"].removeprefix("given:"),
        "bytes": {
            "images": shown[0],
            "projector": shown[1],
            "rest": whole - sum(shown),
            "base": (folder / "open_clip_model.safetensors").stat().st_size,
        },
        "sections": lengths,
        "teacher_held_out_accuracy": float(header.teacher["held_out_accuracy"]),
        **{name: float(value) for name, value in header.metrics.items()},
        "recipe": header.recipe,
        "seconds": seconds,
        "content_id": content_id,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["digits", *SETS])
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.name in SETS:
            prepare = [sys.executable, str(shared() / "data" / "prepare.py"), folder, SETS[options.name]]
            subprocess.run(prepare, check=True)
        made_from = inputs(options.name, Path(folder))
        report = build(made_from, Recipe(), out=options.out, overwrite=True)
    record(options.name, facts(report.path, made_from, report.seconds))


if __name__ == "__main__":
    main()
