"""Record what an assistant teaches after some epochs of its training, and what their mean logits teach.

    python tests/benchmarks/stages.py --folder WORK [--images-per-class 1 2 3 5 10] [--epochs 12] [--students 3]
        [--data cifar100] [--only 'epoch 12' …]

CIFAR-10 or -100, images chosen by a given teacher; WORK keeps the assistant, which is one for all numbers of images a
class. Students are of its kind, by RDED's protocol; one more has a tenth of its epochs, to see whether that tells
beforehand who teaches best: its accuracy, and how far it is from the labels (KL, at the protocol's temperature).
Results are added to those of earlier runs.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from builds import SETS, inputs
from common import RESULTS, record, shared
from fits import Subject, student
from safetensors.torch import load_file, save_file
from torch import nn

from hellods.distill.arrange import Setting, prepare
from hellods.distill.initialize import initialize
from hellods.distill.mentors import get_assistant, get_teacher
from hellods.distill.recipe import Recipe
from hellods.evaluate.presets import Protocol
from hellods.nets import create
from hellods.progress import silent
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.trajectory import Average, average


def trained(setting: Setting, folder: Path) -> dict[int, nn.Module]:
    """Return the assistant after each of its stages, trained if WORK has it not."""
    recipe = setting.recipe
    kept = folder / f"stages-{setting.source.name}-{recipe.epochs}.safetensors"
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
    parser.add_argument("--data", choices=["cifar10", "cifar100"], default="cifar10")
    parser.add_argument("--images-per-class", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--epochs", type=int, default=12, help="of the assistant's training")
    parser.add_argument("--students", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="label makers by name, such as 'mean of epochs 1 and 2'")
    options = parser.parse_args()
    prepare_data = [sys.executable, str(shared() / "data" / "prepare.py"), str(options.folder), SETS[options.data]]
    subprocess.run(prepare_data, check=True)
    results = "stages" if options.data == "cifar10" else f"stages_{options.data}"
    last = options.epochs
    stages = (1, 2, last // 3, last * 2 // 3, last)
    asked = Recipe(teacher_epochs=last, teacher_stages=stages)
    setting = prepare(inputs(options.data, options.folder), asked)
    networks, given = trained(setting, options.folder), get_teacher(setting, silent)
    makers = {f"epoch {epoch}": [network] for epoch, network in networks.items()}
    makers["mean of epochs 1 and 2"] = [networks[1], networks[2]]
    makers[f"mean of epochs {', '.join(map(str, stages[2:]))}"] = [networks[epoch] for epoch in stages[2:]]
    makers["the given teacher"] = [given.network]
    mean, std = setting.inputs.teacher_mean, setting.inputs.teacher_std
    for count in options.images_per_class:
        recipe = replace(setting.recipe, images_per_class=count)
        layout = replace(setting.layout, images_per_class=count)
        images = initialize("patches", setting.source, given, layout, seed=0)
        for name in options.only or makers:
            chosen = makers[name]
            assistant = Teacher(average(chosen), architecture="mean", mean=mean, std=std)
            here = Subject(setting=replace(setting, recipe=recipe, layout=layout), images=images, assistant=assistant)
            score = check_teacher(assistant, setting.held_out, recipe.side)
            early = student(here, assistant, 0, epochs=Protocol().epochs // 10)
            students = [student(here, assistant, seed).accuracy for seed in range(options.students)]
            print(count, name, score, early.accuracy, students, file=sys.stderr, flush=True)
            kept = RESULTS / f"{results}.json"  # read again, in case of another run beside this one
            found = json.loads(kept.read_text())["of"] if kept.exists() else {}
            of = found.setdefault(f"{last} epochs", {}).setdefault(str(count), {})
            tenth = {"accuracy": early.accuracy, "loss": early.losses[-1]}
            of[name] = {"accuracy": score, "students": students, "after_a_tenth": tenth}
            record(results, {"of": found})


if __name__ == "__main__":
    main()
