"""Fit projectors to one assistant, one change at a time, and record how near each comes and what it teaches.

    python tests/benchmarks/fits.py 10 --folder WORK [--images imagenette] [--only NAME ...] [--students SEEDS]

CIFAR-10, or Imagenette at 128 px, at so many images a class, chosen by a given teacher, labelled by an assistant, as
`hellods build` makes both; WORK keeps them. Every fit sees 20,000 of the file's own views unless its name says
otherwise, and is judged on 2,000 others of them by the assistant's answers. What a build can do is fitted by the
build's own functions; what it cannot (`Way`) by the loop here, whose `plain` does the same as a build's. Results are
added to those of earlier runs. Deltas are of rank 4 and the base model is `hello-tiny`, the defaults when most of this
was measured, where a name says nothing else.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from builds import SETS, inputs
from common import RESULTS, record, shared
from factors import size
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hellods.device import training_dtype
from hellods.distill.arrange import Setting, arrange, describe, lessons, make_projector, prepare
from hellods.distill.fit import Fit, fit_projector, quantize_projector
from hellods.distill.initialize import initialize
from hellods.distill.mentors import get_assistant, get_teacher, training_of
from hellods.distill.recipe import RANK, Recipe
from hellods.evaluate.feed import Lesson
from hellods.evaluate.fidelity import fidelity
from hellods.evaluate.presets import Protocol, resolve
from hellods.evaluate.student import Outcome, learn
from hellods.labels.projector import Projector
from hellods.progress import silent
from hellods.teachers.teacher import Teacher
from hellods.teachers.training import untrained
from hellods.views.draw import draw
from hellods.views.render import render
from hellods.views.rule import Views

VIEWS, JUDGED, SEED = 20_000, 2000, 10**6  # no fit and no student draws with this seed
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the loop here fits, beside a recipe."""

    average: float | None = None  # decay of the exponential moving average of what is learned
    multiplier: str = "cosine"  # "linear", "constant"
    loss: str = "centered"  # of logits less their mean; "mse": as they are; "to centered"; "kl-T": at a temperature
    begin: bool = False  # the head's bias begins at what makes the mean logit of own views zero
    clip: float | None = None  # of the norm of all gradients
    optimizer: str = "muon"  # "adamw": the tower's deltas learn as the head does
    rates: tuple[float, float] | None = None  # of the tower's deltas and of the head; None: the recipe's
    up: float = 1.0  # the rate of a delta's `up`, against that of its `down` (LoRA+, arXiv 2402.12354)
    momentum: float = 0.95
    warm: int = 0  # steps in which the rates rise
    head: bool = False  # Muon learns its deltas too


@dataclass(frozen=True, kw_only=True)
class Variant:
    recipe: dict[str, Any] = field(default_factory=dict)
    base: str = "hello-tiny"
    way: Way | None = None  # None: the build's own fit
    statistics: bool = False  # of the tower's BatchNorm are those of own views


VARIANTS = {
    "build": Variant(),
    "plain": Variant(way=Way()),
    "AdamW": Variant(way=Way(optimizer="adamw", rates=(0.002, 0.01))),
    **{f"rank {rank}": Variant(recipe={"encoder_rank": rank}) for rank in (2, 3, 4, 6, 8)},
    **{f"rate {rate}": Variant(recipe={"fit_learning_rate": rate}) for rate in (0.002, 0.004, 0.006, 0.008, 0.016)},
    **{f"head's rate {rate}": Variant(recipe={"head_learning_rate": rate}) for rate in (0.003, 0.03)},
    **{f"batch {size}": Variant(recipe={"fit_batch_size": size}) for size in (8, 16, 64)},
    "momentum 0.9": Variant(way=Way(momentum=0.9)),
    "warmed up": Variant(way=Way(warm=60)),
    "up twice as fast": Variant(way=Way(up=2.0)),
    "up half as fast": Variant(way=Way(up=0.5)),
    "head by Muon": Variant(way=Way(head=True)),
    "begun": Variant(way=Way(begin=True)),
    **{name: Variant(way=Way(loss=name)) for name in ("mse", "to centered", "kl-1", "kl-4")},
    "averaged 0.99": Variant(way=Way(average=0.99)),
    "gradients clipped": Variant(way=Way(clip=1.0)),
    "true classes 0.1": Variant(recipe={"hard_weight": 0.1}),
    "constant": Variant(way=Way(multiplier="constant")),
    "linear": Variant(way=Way(multiplier="linear")),
    "bare names": Variant(recipe={"template": "{}"}),
    "three templates": Variant(recipe={"template": "a photo of a {}|a low resolution photo of a {}|a {}"}),
    "prototypes": Variant(recipe={"head": "prototypes"}),
    "statistics of own views": Variant(recipe={"label_precision": "bf16"}, statistics=True),  # so no norm is folded
    **{f"{views} views": Variant(recipe={"fit_views": views}) for views in (8_000, 40_000, 80_000, 160_000, 320_000)},
    **{
        f"80000 views, rank {rank}, rate {rate}": Variant(
            recipe={"fit_views": 80_000, "encoder_rank": rank, "fit_learning_rate": rate}
        )
        for rank in (4, 6)
        for rate in (0.002, 0.004, 0.006, 0.008)
    },
    **{
        f"hello-convnet, rank {rank}": Variant(recipe={"encoder_rank": rank}, base="hello-convnet")
        for rank in (4, 8, 16, 24)
    },
    **{
        f"hello-convnet, 160000 views, rank {rank}": Variant(
            recipe={"fit_views": 160_000, "encoder_rank": rank}, base="hello-convnet"
        )
        for rank in (8, 16, 32, 64)
    },
    **{
        f"hello-convnet, 160000 views, rank 16, {quantization}": Variant(
            recipe={"fit_views": 160_000, "encoder_rank": 16, "quantization": quantization}, base="hello-convnet"
        )
        for quantization in ("int8", "fp16")
    },
    "16000 views": Variant(recipe={"fit_views": 16_000}),
    "16000 views, rate 0.008": Variant(recipe={"fit_views": 16_000, "fit_learning_rate": 0.008}),
    **{
        f"160000 views, rank {rank}": Variant(recipe={"fit_views": 160_000, "encoder_rank": rank}) for rank in (2, 6, 8)
    },
    "160000 views, rate 0.002": Variant(recipe={"fit_views": 160_000, "fit_learning_rate": 0.002}),
    "80000 views, AdamW": Variant(recipe={"fit_views": 80_000}, way=Way(optimizer="adamw", rates=(0.002, 0.01))),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What all variants of one number of images a class share."""

    setting: Setting
    images: Tensor  # uint8 (N, 3, S, S)
    assistant: Teacher


def arguments(about: str | None, names: list[str], students: int) -> argparse.Namespace:
    """Return what a command of this folder was asked that compares named ways under one assistant."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_per_class", type=int)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", choices=[*SETS], default="cifar10")
    parser.add_argument("--only", nargs="+", default=names, choices=names)
    parser.add_argument("--students", type=int, default=students, help="how many learn from each")
    return parser.parse_args()


def subject(name: str, images_per_class: int, folder: Path) -> Subject:
    unpack = [sys.executable, str(shared() / "data" / "prepare.py"), str(folder), SETS[name]]
    subprocess.run(unpack, check=True)
    made_from = inputs(name, folder)
    side = 128 if name == "imagenette" else None
    asked = Recipe(images_per_class=images_per_class, fit_views=VIEWS, encoder_rank=4, side=side)
    setting = prepare(made_from, asked)
    recipe = setting.recipe
    kept = folder / f"{prefix(name)}fits-{images_per_class}.safetensors"
    if not kept.exists():
        teacher = get_teacher(setting, silent)
        chosen = initialize("patches", setting.source, teacher, setting.layout, recipe.seed)
        network = get_assistant(setting, teacher, silent).network
        save_file({"images": chosen} | {f"network.{k}": v.contiguous() for k, v in network.state_dict().items()}, kept)
    state = load_file(kept)
    images = state.pop("images")
    training = training_of(recipe.assistant, made_from, recipe, recipe.side)
    assistant = untrained(training, len(setting.source.classes))
    assistant.network.load_state_dict({name.removeprefix("network."): value for name, value in state.items()})
    return Subject(setting=setting, images=images, assistant=assistant)


def prefix(name: str) -> str:
    """Return what the files of a set are called by; CIFAR-10 was the only one once."""
    return "" if name == "cifar10" else f"{name}_"


def fitted(subject: Subject, variant: Variant) -> tuple[Projector, float]:
    """Return a projector as an archive would hold it, and the seconds of its fit."""
    source, recipe = subject.setting.source, replace(subject.setting.recipe, **variant.recipe)
    texts = describe(source.classes, subject.setting.inputs.descriptions)
    projector = make_projector(variant.base, recipe.encoder_rank or RANK, texts, recipe)
    _, views, fit = arrange(recipe)
    if recipe.head == "prototypes":
        from hellods.distill.prototypes import prototypes

        projector.set_prototypes(prototypes(projector, source, views.size, silent))
    seen, views = lessons(recipe, source, subject.images, views)
    if variant.statistics:
        estimate(projector, subject, views)
    start = time.monotonic()
    if variant.way is None:
        fit_projector(projector, subject.assistant, seen, views, fit)
    else:
        projector = fit_otherwise(projector, subject, views, fit, variant.way)
    spent = time.monotonic() - start
    if recipe.quantization == "int4":
        quantize_projector(projector, seen, views, fit)
    projector.load(projector.state())
    return projector, spent


@torch.no_grad()
def estimate(projector: Projector, subject: Subject, views: Views) -> None:
    """Let the tower's BatchNorm have the mean and variance of 6,400 own views."""
    norms = [module for module in projector.tower.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count = len(subject.images)
    for step in range(64):
        indices = torch.arange(100) % count
        drawn = draw(views, tuple(subject.images.shape[2:]), count, SEED + 2, step, indices)
        projector(render(subject.images, drawn))
    for norm in norms:
        norm.eval()


def fit_otherwise(projector: Projector, subject: Subject, views: Views, fit: Fit, way: Way) -> Projector:
    """Return a projector fitted as `fit_projector` does, but for what `way` changes."""
    side, count, dtype = (views.size, views.size), len(subject.images), training_dtype("cpu")
    if way.begin:
        drawn = draw(views, side, count, SEED + 1, 0, torch.arange(min(count, 100)))
        with torch.no_grad():
            projector.bias.sub_(projector(render(subject.images, drawn)).mean())
    tower = [value for value in projector.tower.parameters() if value.requires_grad]
    known = {id(value) for value in tower}
    head = [value for value in projector.learned().values() if id(value) not in known]
    rate, head_rate = way.rates or (fit.learning_rate, fit.head_learning_rate)
    ups = {id(value) for name, value in projector.tower.named_parameters() if name.endswith(".up")}
    groups = [
        {"params": [value for value in tower if id(value) not in ups], "lr": rate},
        {"params": [value for value in tower if id(value) in ups], "lr": way.up * rate},
        {"params": head, "lr": head_rate},
    ]
    by_muon = [way.optimizer == "muon", way.optimizer == "muon", way.head]
    matrices = [group | {"params": [value for value in group["params"] if value.ndim == 2]} for group in groups]
    others = [group | {"params": [value for value in group["params"] if value.ndim != 2]} for group in groups]
    muon = [matrix for matrix, moved in zip(matrices, by_muon, strict=True) if moved]
    adamw = others + [matrix for matrix, moved in zip(matrices, by_muon, strict=True) if not moved]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, weight_decay=0.0)]
    if muon:
        options = {"weight_decay": 0.0, "momentum": way.momentum, "adjust_lr_fn": "match_rms_adamw"}
        optimizers.append(torch.optim.Muon(muon, **options))
    every = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates, learned = [group["lr"] for group in every], [*tower, *head]
    mean = [value.detach().clone() for value in learned]
    steps, generator = -(-fit.views // fit.batch_size), torch.Generator().manual_seed(fit.seed)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(-(-steps * fit.batch_size // count))])
    for step in range(steps):
        indices = order[step * fit.batch_size : (step + 1) * fit.batch_size]
        drawn = draw(views, side, len(indices), fit.seed, step, torch.arange(len(indices)))
        seen = render(subject.images[indices], drawn)
        for group, rate in zip(every, rates, strict=True):
            group["lr"] = rate * falling(way.multiplier, step / steps) * min(1.0, (step + 1) / (way.warm + 1))
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            target, logits = subject.assistant(seen).float(), projector(seen)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(way.loss, logits.float(), target).backward()
        if way.clip:
            nn.utils.clip_grad_norm_(learned, way.clip)
        for optimizer in optimizers:
            optimizer.step()
        if way.average:
            torch._foreach_lerp_(mean, [value.detach() for value in learned], 1 - min(way.average, step / (step + 10)))
    if way.average:
        with torch.no_grad():
            for value, middle in zip(learned, mean, strict=True):
                value.copy_(middle)
    return projector


def falling(multiplier: str, done: float) -> float:
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda done: 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item()),
        "linear": lambda done: 1 - done,
        "constant": lambda done: 1.0,
    }
    return shapes[multiplier](done)


def loss(name: str, logits: Tensor, target: Tensor) -> Tensor:
    if name == "mse":
        return F.mse_loss(logits, target)
    centered = target - target.mean(1, keepdim=True)
    if name == "to centered":
        return F.mse_loss(logits, centered)
    if name == "centered":
        return F.mse_loss(logits - logits.mean(1, keepdim=True), centered)
    temperature = float(name.removeprefix("kl-"))
    ours, theirs = (F.log_softmax(value / temperature, dim=1) for value in (logits, target))
    return temperature**2 * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def judged(subject: Subject, projector: Projector) -> dict[str, Any]:
    """Return how near the labels come to the assistant's on views that no fit saw, and on held-out images."""
    views = subject.setting.views
    count, side = len(subject.images), (views.size, views.size)
    places = torch.arange(JUDGED)
    answers, theirs = [], []
    for part in torch.split(places, 100):
        seen = render(subject.images, draw(views, side, count, SEED, part // count, part % count))
        with torch.no_grad():
            answers.append(projector.label(seen))
            theirs.append(subject.assistant(seen))
    labels, truth = torch.cat(answers), torch.cat(theirs)
    near = fidelity(labels, truth, torch.zeros_like(labels))
    return {key: near[key] for key in ("agreement", "kl", "entropy")}


def student(
    subject: Subject, label_maker: Callable[[Tensor], Tensor], seed: int, epochs: int = Protocol().epochs
) -> Outcome:
    """Return what became of a student of the assistant's kind, by RDED's protocol."""
    recipe, classes, count = subject.setting.recipe, len(subject.setting.source.classes), len(subject.images)
    protocol, views = resolve(Protocol(student=recipe.assistant, epochs=epochs), subject.setting.views, count, classes)
    lesson = Lesson(
        pixels=lambda indices: subject.images[indices],
        side=views.size,
        targets=torch.arange(classes).repeat_interleave(recipe.images_per_class),
        views=views,
        labels=label_maker,
        protocol=protocol,
        steps=-(-count // (protocol.batch_size or 1)),
        held_out=subject.setting.held_out,
        mean=subject.assistant.mean,
        std=subject.assistant.std,
    )
    return learn(lesson, seed, CPU, training_dtype(CPU))


def main() -> None:
    options = arguments(__doc__, ["assistant", *VARIANTS], students=0)
    here = subject(options.images, options.images_per_class, options.folder)
    name = f"{prefix(options.images)}fits_ipc{options.images_per_class}"
    kept = RESULTS / f"{name}.json"
    for variant in options.only:
        found = json.loads(kept.read_text())["fits"] if kept.exists() else {}
        facts: dict[str, Any] = found.get(variant, {})
        done = facts.get("students", [])
        if facts and len(done) >= options.students:
            continue
        label_maker: Callable[[Tensor], Tensor] = here.assistant
        if variant != "assistant":
            projector, spent = fitted(here, VARIANTS[variant])
            facts = {"seconds": round(spent), "bytes": size(projector), **judged(here, projector)}
            projector.merge()
            label_maker = projector.label
        facts["students"] = done + [
            student(here, label_maker, seed).accuracy for seed in range(len(done), options.students)
        ]
        print(variant, facts, file=sys.stderr, flush=True)
        found = json.loads(kept.read_text())["fits"] if kept.exists() else {}  # of another run beside this one
        record(name, {"views": VIEWS, "judged_on": JUDGED, "fits": found | {variant: facts}})


if __name__ == "__main__":
    main()
