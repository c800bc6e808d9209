"""Train assistants from several seeds, and record what each teaches by itself, and what their mean logits teach.

    python tests/benchmarks/assistants.py 10 --folder WORK [--images imagenette] [--runs 4] [--students 3]

CIFAR-10, or Imagenette at 128 px, at so many images a class, chosen by a given teacher; WORK keeps the images and the
assistants. Students are of their kind, by RDED's protocol.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from builds import SETS
from common import record
from fits import Subject, prefix, student, subject
from safetensors.torch import load_file, save_file
from torch import nn

from hellods.distill.mentors import get_assistant, get_teacher
from hellods.nets import create
from hellods.progress import silent
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.trajectory import Average, average


def networks(here: Subject, folder: Path, name: str, seed: int) -> list[nn.Module]:
    """Return the stages of the assistant of this seed, trained if WORK has it not."""
    recipe = replace(here.setting.recipe, seed=seed)
    kept = folder / f"{name}-{seed}.safetensors"
    if not kept.exists() and seed == 0:
        save_file({k: v.contiguous() for k, v in here.assistant.network.state_dict().items()}, kept)
    if not kept.exists():
        setting = replace(here.setting, recipe=recipe)
        network = get_assistant(setting, get_teacher(setting, silent), silent).network
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, kept)
    network = average([create(recipe.assistant, len(here.setting.source.classes), recipe.side) for _ in recipe.stages])
    network.load_state_dict(load_file(kept))
    return list(network) if isinstance(network, Average) else [network]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_per_class", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", choices=[*SETS], default="cifar10")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--students", type=int, default=3)
    options = parser.parse_args()
    here = subject(options.images, options.images_per_class, options.folder)
    kept = f"{prefix(options.images)}assistant-{options.images_per_class}"
    runs = [networks(here, options.folder, kept, seed) for seed in range(options.runs)]
    counts = [count for count in (2, 4) if count <= len(runs)]
    makers = {f"seed {seed}": run for seed, run in enumerate(runs)}
    makers |= {f"{count} together": [network for run in runs[:count] for network in run] for count in counts}
    if len(runs[0]) > 1:  # the mean of two stages
        makers |= {f"{count} together, first stage": [run[0] for run in runs[:count]] for count in counts}
        makers |= {f"{count} together, second stage": [run[1] for run in runs[:count]] for count in counts}
        makers |= {f"seed {seed}, first stage": [run[0]] for seed, run in enumerate(runs[:2])}
    found: dict[str, Any] = {}
    mean, std = here.setting.inputs.teacher_mean, here.setting.inputs.teacher_std
    for name, chosen in makers.items():
        assistant = Teacher(average(chosen), architecture="mean", mean=mean, std=std)
        score = check_teacher(assistant, here.setting.held_out, here.setting.recipe.side)
        taught = [student(here, assistant, seed).accuracy for seed in range(options.students)]
        found[name] = {"accuracy": score, "students": taught}
        print(name, found[name], file=sys.stderr, flush=True)
        record(f"{prefix(options.images)}assistants_ipc{options.images_per_class}", {"label_makers": found})


if __name__ == "__main__":
    main()
