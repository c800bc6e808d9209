"""Reports as an evaluation writes them, with numbers made up but of the right size."""

import random
from collections.abc import Callable
from typing import Any

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ACCURACIES = {
    "hello": 0.512,
    "teacher": 0.468,
    "hard": 0.361,
    "random-hello": 0.526,
    "random-teacher": 0.411,
    "shipped-int8": 0.466,
    "shipped-int4": 0.438,
    "stored-1x": 0.352,
    "stored-10x": 0.407,
    "stored-100x": 0.455,
    "full": 0.786,
}
LABELS = {"hard": 0, "teacher": 544_948, "random-teacher": 544_948, "shipped-int8": 279_100, "shipped-int4": 142_900,
          "stored-10x": 1_938_500, "stored-100x": 19_385_000, "full": 0}  # fmt: skip
SAYS = {
    "hello": "the archive's images and labels",
    "teacher": "its images, labelled by the teacher as training goes",
    "hard": "its images, and their classes alone",
    "random-hello": "as many random real images, the archive's labels",
    "full": "all real images, their classes, as many steps",
}


def sample(
    *,
    file: str = "c10.hello",
    classes: tuple[str, ...] = CIFAR10,
    seeds: int = 3,
    arms: tuple[str, ...] = tuple(ACCURACIES),
) -> dict[str, Any]:
    """Return a report of one archive."""
    rng = random.Random(file)
    return {
        "format": "hellods-report 1",
        "command": f"hellods evaluate {file} --data cifar10 --teacher resnet20.safetensors --seeds {seeds}",
        "date": "2026-11-21",
        "hardware": "AMD EPYC, 2 threads",
        "device": "cpu",
        "precision": "bf16",
        "versions": {"hellods": "0.1.0", "torch": "2.9.1", "torchvision": "0.24.1", "python": "3.11.2"},
        "data": {
            "name": "cifar10",
            "images": 50_000,
            "bytes": 118_000_000,
            "sha256": "5f" * 32,
            "held_out": {"images": 10_000, "sha256": "a1" * 32},
        },
        "teacher": {
            "architecture": "cifar10_resnet20",
            "sha256": "0c" * 32,
            "parameters": 272_474,
            "held_out_accuracy": 0.917,
        },
        "seeds": list(range(seeds)),
        "archives": [
            {
                "file": file,
                "name": "cifar10",
                "content_id": "3e" * 32,
                "classes": list(classes),
                "images": 10 * len(classes),
                "images_per_class": 10,
                "side": 32,
                "protocol": {
                    "student": "convnet3",
                    "epochs": 300,
                    "batch_size": 50,
                    "learning_rate": "0.001",
                    "weight_decay": "0.01",
                    "lr_schedule": "half-cosine",
                    "loss": "kl",
                    "temperature": "20",
                    "hard_weight": "0",
                },
                "views": {"size": 32, "scale": ["1", "1"], "flip": True, "shuffle": 1, "mix": "cutmix"},
                "steps": 600,
                "student_parameters": 320_010,
                "same_data": True,
                "same_teacher": True,
                "teacher": {"architecture": "resnet20", "sha256": "0c" * 32, "parameters": 272_474, "networks": 1},
                "assistant": None,
                "base": {"name": "hello-tiny", "sha256": "7b" * 32, "bytes": 2_954_544},
                "arms": {arm: _arm(rng, arm, len(classes), seeds) for arm in arms},
                "not_run": {},
                "scores": {
                    "hlr": {"mean": 0.425, "std": 0.006 if seeds > 1 else None},
                    "ior_hello": {"mean": -0.014, "std": 0.005 if seeds > 1 else None},
                    "ior_teacher": {"mean": 0.057, "std": 0.007 if seeds > 1 else None},
                },
            }
        ],
    }


def _arm(rng: random.Random, arm: str, classes: int, seeds: int) -> dict[str, Any]:
    values = [round(ACCURACIES[arm] + rng.gauss(0, 0.005), 4) for _ in range(seeds)]
    epochs = list(range(30, 301, 30))
    soft = arm not in ("hard", "full")
    return {
        "says": SAYS.get(arm, f"what {arm} says"),
        "bytes": {
            "images": 118_000_000 if arm == "full" else 163_290,
            "labels": LABELS.get(arm, 193_850),
            "rest": 0 if arm == "full" else 4_396,
        },
        "needs_base": arm in ("hello", "random-hello"),
        "accuracy": {
            "last": spread(values),
            "best": {**spread([value + 0.006 for value in values]), "epochs": [rng.choice(epochs) for _ in values]},
        },
        "per_class": [min(1.0, max(0.0, rng.gauss(ACCURACIES[arm], 0.15))) for _ in range(classes)],
        "curves": [
            {
                "seed": seed,
                "epochs": epochs,
                "accuracy": [value * (1 - 0.6 * 0.988**e) + rng.gauss(0, 0.006) for e in epochs],
                "loss": [(0.02 if soft else 1.9) * (0.25 + 0.993**e) * (1.1 - value) for e in epochs],
            }
            for seed, value in enumerate(values)
        ],
        "fidelity": {
            "views": 2048,
            "agreement": 1.0 if arm == "teacher" else 0.684,
            "kl": {"1": 0.51, "4": 0.112, "20": 0.0093},
            "calibration_error": 0.083,
            "entropy": 1.21,
            "margin": 0.42,
        }
        if soft
        else None,
        "seconds_per_epoch": {"views": 0.011, "labels": 0.023 if soft else 0.0, "student": 0.084},
        "flops_per_epoch": {"labels": 1.2e9 if soft else 0.0, "student": 3.0e10},
    }


def spread(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    return {"mean": mean, "std": spread if len(values) > 1 else None, "values": values}


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """Return a smaller sample after a change of the report or of its archive."""
    report = sample(arms=("hello", "teacher", "hard", "full"))
    change(report, report["archives"][0])
    return report
