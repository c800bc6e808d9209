"""Choose the images of a file in several ways, and record what students learn from each under the same labels.

    python tests/benchmarks/choices.py 10 --folder WORK [--images imagenette] [--only NAME ...] [--students 3]

CIFAR-10, or Imagenette at 128 px, at so many images a class, labelled by the assistant itself; WORK keeps it. Students
are of its kind, by RDED's protocol. Results are added to those of earlier runs.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace

from common import RESULTS, record
from fits import Subject, arguments, prefix, student, subject
from torch import Tensor

from hellods.distill.initialize import initialize
from hellods.distill.mentors import get_teacher
from hellods.progress import silent
from hellods.teachers.teacher import Teacher


def patches(here: Subject, teacher: Teacher) -> Tensor:
    return initialize("patches", here.setting.source, teacher, here.setting.layout, here.setting.recipe.seed)


def real(here: Subject, seed: int) -> Tensor:
    return initialize("real", here.setting.source, here.assistant, here.setting.layout, seed)


CHOICES: dict[str, Callable[[Subject], Tensor]] = {
    "patches, by the teacher": lambda here: patches(here, get_teacher(here.setting, silent)),
    "patches, by the assistant": lambda here: patches(here, here.assistant),
    **{f"random images, seed {seed}": lambda here, seed=seed: real(here, seed) for seed in range(3)},  # type: ignore[misc]
}


def main() -> None:
    options = arguments(__doc__, [*CHOICES], students=3)
    here = subject(options.images, options.images_per_class, options.folder)
    name = f"{prefix(options.images)}choices_ipc{options.images_per_class}"
    kept = RESULTS / f"{name}.json"
    for choice in options.only:
        chosen = replace(here, images=CHOICES[choice](here))
        students = [student(chosen, here.assistant, seed).accuracy for seed in range(options.students)]
        print(choice, students, file=sys.stderr, flush=True)
        found = json.loads(kept.read_text())["students"] if kept.exists() else {}
        record(name, {"students": found | {choice: students}})


if __name__ == "__main__":
    main()
