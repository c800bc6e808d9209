"""Evaluate archives of real images as `hellods evaluate` does, and record the reports.

    python tests/benchmarks/evaluations.py cifar10-ipc10 --folder WORK

WORK keeps the prepared images, the archive (built if it is missing) and every finished student, so an interrupted
measurement goes on. The convnet ones need `convnet_teacher.py WORK` first. All but those take hours on two cores.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from builds import SETS, facts, inputs
from common import RESULTS, record, shared

from hellods.distill.build import build
from hellods.distill.recipe import Inputs, Recipe, trains
from hellods.evaluate.arms import ARMS
from hellods.evaluate.evaluate import evaluate
from hellods.evaluate.presets import Protocol
from hellods.evaluate.question import Question

FOUR = ("hello", "teacher", "hard", "random")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """An archive and what is asked of it."""

    images: str  # a key of SETS, or digits
    recipe: Mapping[str, Any]
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 3
    protocol: Protocol = field(default_factory=Protocol)
    base: str | None = None  # None: that of builds.py
    teacher: str | None = None  # None: that of builds.py; else train:NETWORK, or the function of WORK/FUNCTION.py


def cifar10(images_per_class: int, preset: str = "best", **asked: Any) -> Measurement:
    """A teacher that is given, and an assistant, which is the default for small images."""
    return Measurement(images="cifar10", recipe={"images_per_class": images_per_class, "preset": preset}, **asked)


def cifar100(images_per_class: int, arms: tuple[str, ...], seeds: int) -> Measurement:
    """A hundred classes, and a teacher that is given; the base model's training images are the same."""
    return Measurement(images="cifar100", recipe={"images_per_class": images_per_class}, arms=arms, seeds=seeds)


def imagenette(images_per_class: int, **recipe: Any) -> Measurement:
    return Measurement(
        images="imagenette",
        recipe={"images_per_class": images_per_class, "side": 128, **recipe},
        arms=FOUR,
        seeds=1,
        protocol=Protocol(student="resnet18"),
    )


# The teacher's own labels, learned on real images, as builds did before there were assistants.
ALONE = {"assistant": "none", "quantization": "fp16", "fit_batch_size": 128}


def convnet(images_per_class: int) -> Measurement:
    """A ConvNet-3 as teacher, as in RDED; it labels as training goes, so the projector is hardly fitted."""
    recipe = {"images_per_class": images_per_class, "fit_views": 128, "assistant": "none"}
    return Measurement(images="cifar10", recipe=recipe, arms=("teacher",), teacher="convnet3")


def best(images_per_class: int, arms: tuple[str, ...] = ("hello", "teacher"), **knobs: Any) -> Measurement:
    """What the package does by itself: its own teacher, of the student's kind, and the longest fit of a preset."""
    recipe = {"images_per_class": images_per_class, "preset": "best"} | knobs
    return Measurement(images="cifar10", recipe=recipe, arms=arms, teacher="train:convnet3")


MEASUREMENTS = {
    "digits": Measurement(
        images="digits",
        recipe={},
        arms=(*FOUR, "full"),
        protocol=Protocol(epochs=100),  # enough for all of them
    ),
    "cifar10-ipc1": cifar10(1, "default", arms=(*FOUR, "shipped-int4", "stored-1x")),
    "cifar10-ipc10": cifar10(10, arms=FOUR),
    "cifar10-ipc50": cifar10(50, "default", arms=("hello", "teacher", "hard")),
    "cifar10-convnet-ipc10": convnet(10),
    "cifar10-convnet-ipc50": convnet(50),
    "cifar10-best-ipc1": best(1, FOUR),
    "cifar10-best-ipc10": best(10, ("hello", "teacher", "shipped-int4"), fit_views=640_000),  # twice as many
    "cifar10-alone-ipc1": Measurement(images="cifar10", recipe={"images_per_class": 1, **ALONE}),
    "cifar10-alone-ipc10": Measurement(images="cifar10", recipe={"images_per_class": 10, **ALONE}),
    "cifar10-alone-ipc50": Measurement(images="cifar10", recipe={"images_per_class": 50, **ALONE}, arms=FOUR, seeds=1),
    "cifar100-ipc1": cifar100(1, FOUR, 3),
    "cifar100-ipc10": cifar100(10, ("hello", "teacher"), 1),
    "imagenette-alone-ipc1": imagenette(1, **ALONE, fit_views=3072),
    "imagenette-alone-ipc10": imagenette(10, **ALONE, fit_views=3072),
    "imagenette-ipc10": replace(imagenette(10), arms=("hello",)),
    "imagenette-tiny-ipc1": replace(imagenette(1), base="hello-tiny", seeds=3),
    "imagenette-tiny-ipc10": replace(imagenette(10), base="hello-tiny", arms=("hello",), seeds=3),
    "imagenette-best-ipc10": replace(
        imagenette(10, preset="best"), base="hello-tiny", arms=("hello", "teacher", "hard"), seeds=3
    ),
}


def prepared(measurement: Measurement, folder: Path) -> Inputs:
    """Return where the real images and the teacher are; the images are written if they are missing."""
    if measurement.images in SETS:
        prepare = [sys.executable, str(shared() / "data" / "prepare.py"), str(folder), SETS[measurement.images]]
        subprocess.run(prepare, check=True)
    made_from = inputs(measurement.images, folder)
    made_from = replace(made_from, base=measurement.base or made_from.base)
    name = measurement.teacher
    if name is None:
        return made_from
    if trains(name):
        return replace(made_from, teacher=name, teacher_weights=None)
    weights = folder / f"{name}.safetensors"
    return replace(made_from, teacher=f"{folder / name}.py:{name}", teacher_weights=str(weights))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*MEASUREMENTS])
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    name, folder = options.name, options.folder
    measurement = MEASUREMENTS[name]
    made_from = prepared(measurement, folder)
    archive = folder / f"{name}.hello"
    # Beside other work a build takes longer, so it is timed by builds.py alone.
    if not archive.exists():
        build(made_from, Recipe(**measurement.recipe), out=archive)
    record(f"build_{name.replace('-', '_')}", facts(archive, made_from, None))
    question = Question(
        data=made_from.data,
        protocol=measurement.protocol,
        arms=measurement.arms,
        seeds=measurement.seeds,
        base=made_from.base if made_from.base and ":" in made_from.base else None,
        teacher=made_from.teacher,
        teacher_weights=made_from.teacher_weights,
        teacher_mean=made_from.teacher_mean,
        teacher_std=made_from.teacher_std,
    )
    command = shlex.join(["python", "tests/benchmarks/evaluations.py", name, "--folder", "WORK"])
    told = [0.0]

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "Students" and done >= told[0] + total / 100:
            told[0] = done
            click.echo(f"{done} of {total} views", err=True)

    report = evaluate([str(archive)], question, folder / name, command=command, progress=progress)
    (RESULTS / f"evaluate_{name.replace('-', '_')}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
