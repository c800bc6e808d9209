"""Record what an assistant teaches after some epochs of its training, and what their mean logits teach.

    python tests/benchmarks/stages.py --folder WORK [--images-per-class 2 3 5] [--epochs 12] [--students 3]

CIFAR-10, its images chosen by a given teacher; WORK keeps the assistant, which is one for all numbers of images a
class. Students are of its kind, by RDED's protocol. Results are added to those of earlier runs.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from builds import SETS, inputs
from common import RESULTS, record, shared
from fits import Subject, student
from safetensors.torch import load_file, save_file
from torch import nn

from hellods.distill.arrange import Setting, prepare
from hellods.distill.initialize import INITIALIZERS
from hellods.distill.mentors import get_assistant, get_teacher
from hellods.distill.recipe import Recipe
from hellods.nets import create
from hellods.progress import silent
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.trajectory import Average, average


def trained(setting: Setting, folder: Path) -> dict[int, nn.Module]:
    """Return the assistant after each of its stages, trained if WORK has it not."""
    recipe = setting.recipe
    kept = folder / f"stages-{recipe.epochs}.safetensors"
    if not kept.exists():
        network = get_assistant(setting, get_teacher(setting, silent), silent).network
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, kept)
    networks = average([create(recipe.assistant, len(setting.source.classes), recipe.side) for _ in recipe.stages])
    networks.load_state_dict(load_file(kept))
    assert isinstance(networks, Average)
    return dict(zip(recipe.stages, networks, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images-per-class", type=int, nargs="+", default=[2, 3, 5])
    parser.add_argument("--epochs", type=int, default=12, help="of the assistant's training")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="label makers by name, such as 'mean of epochs 1 and 2'")
    options = parser.parse_args()
    subprocess.run(
        [sys.executable, str(shared() / "data" / "prepare.py"), str(options.folder), SETS["cifar10"]], check=True
    )
    last = options.epochs
    stages = (1, 2, last // 3, last * 2 // 3, last)
    asked = Recipe(teacher_epochs=last, teacher_stages=stages)
    setting = prepare(inputs("cifar10", options.folder), asked)
    networks, given = trained(setting, options.folder), get_teacher(setting, silent)
    makers = {f"epoch {epoch}": [network] for epoch, network in networks.items()}
    makers["mean of epochs 1 and 2"] = [networks[1], networks[2]]
    makers[f"mean of epochs {', '.join(map(str, stages[2:]))}"] = [networks[epoch] for epoch in stages[2:]]
    classes, mean, std = setting.source.classes, setting.inputs.teacher_mean, setting.inputs.teacher_std
    for count in options.images_per_class:
        recipe, generator = replace(setting.recipe, images_per_class=count), torch.Generator().manual_seed(0)
        layout = replace(setting.layout, images_per_class=count)
        images = INITIALIZERS["patches"](setting.source, given, layout, generator, silent)
        for name in options.only or makers:
            chosen = makers[name]
            assistant = Teacher(average(chosen), classes, architecture="mean", mean=mean, std=std)
            here = Subject(setting=replace(setting, recipe=recipe, layout=layout), images=images, assistant=assistant)
            score = check_teacher(assistant, setting.held_out, recipe.side)
            students = [student(here, assistant, seed) for seed in range(options.students)]
            print(count, name, score, students, file=sys.stderr, flush=True)
            kept = RESULTS / "stages.json"  # read again, in case of another run beside this one
            found = json.loads(kept.read_text())["of"] if kept.exists() else {}
            of = found.setdefault(f"{last} epochs", {}).setdefault(str(count), {})
            of[name] = {"accuracy": score, "students": students}
            record("stages", {"of": found})


if __name__ == "__main__":
    main()
