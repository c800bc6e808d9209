"""Train a small student on digits, three seeds: soft labels, hard labels, real images, all real data.

    python tests/benchmarks/students.py digits.hello

Every student is a ConvNet-3 that sees as many images, with the README's loss and optimizer and a cosine schedule.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from common import record
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from hellods import HelloDataset, HelloLoader
from hellods.distill.build import build
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.sources import Source, open_source, squares
from hellods.nets import create
from hellods.train import Schedule, accuracy, train

EPOCHS, BATCH, SEEDS = 100, 50, (0, 1, 2)
ARMS = (
    "the file's 100 images, its soft labels",
    "the same images, hard labels, unmixed views",
    "100 random real images, the same kind of soft labels",
    "all real images, hard labels, as many steps",
)


def pixels(source: Source, dataset: HelloDataset) -> tuple[Tensor, Tensor]:
    """Return all images of a source as the student takes them, and their classes."""
    facts = dataset.header.images
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (facts.mean, facts.std))
    images = squares(source, torch.arange(len(source)), facts.height)
    return (images / 255 - mean) / std, source.targets


def student(loader: HelloLoader | DataLoader[tuple[Tensor, ...]], steps: int, seed: int, held: TensorDataset) -> float:
    """Return the held-out accuracy of a ConvNet-3 after `steps` batches of the loader."""

    def batches(_: int) -> Iterator[tuple[Tensor, Tensor]]:
        made = 0
        while made < steps:
            for images, labels in loader:
                if made < steps:
                    made += 1
                    yield images, labels

    network = create("convnet3", 10, 32, seed=seed)
    schedule = Schedule(learning_rate=1e-3)
    train(network, batches, cross_entropy, epochs=1, steps=steps, schedule=schedule, stage="Student", seed=seed)
    return accuracy(network, DataLoader(held, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", help="what builds.py makes of digits")
    options = parser.parse_args()
    source, held_out = open_source("digits", seed=0)
    results: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        random = Path(folder) / "random.hello"
        build(Inputs(data="digits"), Recipe(initializer="real"), random)
        for seed in SEEDS:
            soft = HelloDataset(options.archive, seed=seed)
            held = TensorDataset(*pixels(held_out, soft))
            steps = EPOCHS * len(soft) // BATCH
            loaders = (
                HelloLoader(soft, BATCH, shuffle=True),
                HelloLoader(HelloDataset(options.archive, seed=seed, labels="hard"), BATCH, shuffle=True),
                HelloLoader(HelloDataset(random, seed=seed), BATCH, shuffle=True),
                DataLoader(TensorDataset(*pixels(source, soft)), BATCH, shuffle=True),
            )
            for name, loader in zip(ARMS, loaders, strict=True):
                torch.manual_seed(seed)  # the loaders shuffle by torch's global generator
                results[name].append(round(student(loader, steps, seed, held), 4))
                print(name, seed, results[name][-1], flush=True)
    protocol = {"network": "convnet3", "steps": steps, "batch_size": BATCH, "loss": "cross-entropy", "seeds": SEEDS}
    record("students", {"protocol": protocol, "accuracy": results})


if __name__ == "__main__":
    main()
