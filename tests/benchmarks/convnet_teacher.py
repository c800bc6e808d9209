"""Train a ConvNet-3 teacher for CIFAR-10 that is about as good as RDED's (82.2 %), from 20,000 images.

    python tests/benchmarks/convnet_teacher.py WORK

RDED's learned from 50,000 images. This one learns from the 20,000 at hand and from a ResNet-20 that learned from all
50,000, by the views that it labels: KL at temperature 4 and, with a tenth of the weight, the true classes. WORK gets
convnet3.safetensors, and convnet3.py, which `--teacher WORK/convnet3.py:convnet3` names.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from common import record, shared
from safetensors.torch import save_file
from torch import Tensor

from hellods.nets import create
from hellods.sources.source import open_source, squares
from hellods.teachers.scale import MEAN, STD
from hellods.teachers.teacher import Teacher, check_teacher, load_teacher, normalize
from hellods.train import Schedule, adamw, train
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

EPOCHS, BATCH, SEED, TEMPERATURE, HARD_WEIGHT = 16, 128, 0, 4.0, 0.1
CODE = '''"""The ConvNet-3 that convnet_teacher.py trained."""

from hellods.nets import convnet


def convnet3():
    return convnet(3, 10, 32)
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="WORK")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    weights = shared() / "data" / "teachers"
    with tempfile.TemporaryDirectory() as data:
        subprocess.run([sys.executable, str(shared() / "data" / "prepare.py"), data, "cifar10"], check=True)
        source, held_out = open_source(f"{data}/cifar10")
        master = load_teacher(
            f"{weights / 'cifar_resnet.py'}:cifar10_resnet20",
            str(weights / "cifar10_resnet20.safetensors"),
            MEAN,
            STD,
            source.classes,
            32,
        )
        images = squares(source, torch.arange(len(source)), 32)
        views, steps = Views(size=32, scale=(0.35, 1.0)), len(source) // BATCH
        generator = torch.Generator().manual_seed(SEED)

        def batches(epoch: int) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor]]]:
            order = torch.randperm(len(source), generator=generator)
            for indices in order[: steps * BATCH].view(steps, BATCH):
                seen = render(images, draw(views, (32, 32), len(source), SEED, epoch, indices))
                ready = normalize(seen, MEAN, STD).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    taught = master(seen)
                yield ready, (taught, source.targets[indices])

        def loss(logits: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
            ours, theirs = (F.log_softmax(value / TEMPERATURE, dim=1) for value in (logits, target[0]))
            soft = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * TEMPERATURE**2
            return soft + HARD_WEIGHT * F.cross_entropy(logits, target[1])

        def told(epochs: int) -> None:
            print(f"epoch {epochs} of {EPOCHS}", flush=True)

        network = create("convnet3", 10, 32, seed=SEED).to(memory_format=torch.channels_last)
        optimizer = adamw(network, learning_rate=0.002)
        train(
            network, batches, loss, epochs=EPOCHS, steps=steps, optimizers=[optimizer], schedule=Schedule(),
            stage="Teacher", seed=SEED, precision=torch.bfloat16, after=told,
        )  # fmt: skip
        accuracy = check_teacher(Teacher(network, architecture="convnet3"), held_out, 32)
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, folder / "convnet3.safetensors"
    )
    (folder / "convnet3.py").write_text(CODE)
    record("convnet_teacher", {"epochs": EPOCHS, "held_out_accuracy": round(accuracy, 4)})


if __name__ == "__main__":
    main()
