"""Train an assistant in several ways, one change at a time, and record how right it is and what it teaches.

    python tests/benchmarks/trainings.py 10 --folder WORK [--images imagenette] [--only NAME ...] [--students 2]

CIFAR-10, or Imagenette at 128 px, at so many images a class, chosen by a given teacher; WORK keeps them, and each
trained network. It labels as training goes. Students are of the kind that the build's own assistant is, by RDED's
protocol. Results are added to those of earlier runs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from builds import SETS
from common import RESULTS, record
from fits import Subject, Variant, fitted, judged, prefix, student, subject
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms.v2 import Resize

from hellods import nets
from hellods.distill.mentors import get_teacher, training_of
from hellods.distill.recipe import RANK
from hellods.progress import silent
from hellods.teachers import training
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.training import train_teacher, untrained
from hellods.train import adamw
from hellods.views.rule import Views


@dataclass(frozen=True, kw_only=True)
class Way:
    """What is changed of a build's training."""

    network: str | None = None
    assists: bool = True  # else it learns the true classes alone, as a teacher does that a build trains
    changed: Mapping[str, Callable[..., Any]] = field(default_factory=lambda: {"adamw": adamw})  # what a build calls


def crops(least: float) -> Way:
    """Let it see crops from this share of an image on."""
    return Way(changed={"Views": lambda **given: Views(**given | {"scale": (least, 1.0)})})


def batches(size: int) -> Way:
    return Way(changed={"an_epoch": lambda images: (images // size, size)})


def seen_small(side: int) -> Way:
    """Let it see its images at this side."""

    def create(name: str, classes: int, whole: int, *, seed: int = 0) -> nn.Module:
        return nn.Sequential(Resize((side, side)), nets.create(name, classes, whole, seed=seed))

    return Way(changed={"create": create})


WAYS = {
    "as built": Way(),
    "true classes": Way(assists=False),
    "seen at 64 px": seen_small(64),
    **{f"rate {rate}": Way(changed={"adamw": partial(adamw, learning_rate=rate)}) for rate in (0.0005, 0.002)},
    **{f"crops from {least:.0%}": crops(least) for least in (0.08, 0.7)},
    **{f"batches of {count}": batches(count) for count in (64, 256)},
    **{network: Way(network=network) for network in ("convnet3", "resnet18")},
    **{f"{network}, true classes": Way(network=network, assists=False) for network in ("convnet3", "resnet18")},
}


def trained(here: Subject, way: Way, kept: Path) -> Teacher:
    """Return the network, trained if it is not in the file `kept`."""
    setting, recipe = here.setting, here.setting.recipe
    asked = training_of(way.network or recipe.assistant, setting.inputs, recipe, recipe.side)
    with patch.multiple(training, **way.changed):
        if not kept.exists():
            assists = get_teacher(setting, silent) if way.assists else None
            network = train_teacher(asked, setting.source, assists=assists).network
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, kept)
        teacher = untrained(asked, len(setting.source.classes))
    teacher.network.load_state_dict(load_file(kept))
    return teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_per_class", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", choices=[*SETS], default="cifar10")
    parser.add_argument("--only", nargs="+", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--students", type=int, default=2)
    parser.add_argument("--views", type=int, help="fit a projector on `hello-tiny` to it on so many of the file's own")
    options = parser.parse_args()
    here = subject(options.images, options.images_per_class, options.folder)
    name = f"{prefix(options.images)}trainings_ipc{options.images_per_class}"
    kept = RESULTS / f"{name}.json"
    for way in options.only:
        file = f"{name}-{way.replace(' ', '-').replace(',', '')}.safetensors"
        teacher = trained(here, WAYS[way], options.folder / file)
        score = check_teacher(teacher, here.setting.held_out, here.setting.recipe.side)
        students = [student(here, teacher, seed).accuracy for seed in range(options.students)]
        facts: dict[str, Any] = {"accuracy": score, "students": students}
        if options.views:
            copy = replace(here, assistant=teacher)
            projector, _ = fitted(copy, Variant(recipe={"fit_views": options.views, "encoder_rank": RANK}))
            facts["copied"] = {"views": options.views, **judged(copy, projector)}
        print(way, facts, file=sys.stderr, flush=True)
        found = json.loads(kept.read_text())["trained"] if kept.exists() else {}  # of another run beside this one
        record(name, {"trained": found | {way: found.get(way, {}) | facts}})


if __name__ == "__main__":
    main()
