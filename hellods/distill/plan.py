"""plan(): what a build will take, from its first few steps."""

import contextlib
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import torch

from hellods.distill.arrange import Setting, lessons
from hellods.distill.fit import fit_projector, quantize_projector
from hellods.distill.initialize import INITIALIZERS, Layout
from hellods.distill.measure import measure
from hellods.distill.mentors import get_assistant, get_teacher
from hellods.distill.prototypes import prototypes
from hellods.distill.recipe import Inputs, Resolved
from hellods.distill.sources import KEPT, Source, squares
from hellods.distill.teacher import Teacher, check_teacher
from hellods.distill.trajectory import average
from hellods.format.codecs import decode, encode
from hellods.nets import create
from hellods.progress import Progress, silent, track

STEPS: Final = 3  # of a stage; the first is slow, since memory and kernels are new to it, and does not count
IMAGES: Final = 64  # where a step is one image
CLASSES: Final = 2  # where it is a class
TRAININGS: Final = ("Teacher", "Assistant")  # stages that see every real image
CANDIDATES: Final = 8  # of such a class, in place of hundreds


# What begins a stage, the steps that it is watched for, and how often it counts.
Beginning = tuple[Callable[[Progress], object], int, float]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage of a build will take."""

    stage: str  # as the build reports it
    steps: int
    seconds: float
    memory: int | None  # bytes that the process will have held at most until its end; None: this system does not say


def plan(setting: Setting, progress: Progress = silent) -> tuple[Cost, ...]:
    """Return what the stages of a build will take, in order; nothing is written, and the setting stays as it was.

    Each stage runs as it does in a build, is stopped after a few steps, and their mean is multiplied. The memory is the
    most that this process has held until then (getrusage), and the images that a build will keep decoded beside it;
    that of a GPU is not counted, nor is loading the base model.

    Raises:
        HelloError: the teacher cannot be had, or does not fit the images.
    """
    inputs, recipe, source, held_out = setting.inputs, setting.recipe, setting.source, setting.held_out
    layout, views, fit, device = setting.layout, setting.views, setting.fit, setting.device
    projector = deepcopy(setting.projector)
    classes, side = len(source.classes), layout.side
    images = torch.zeros(classes * layout.images_per_class, 3, side, side, dtype=torch.uint8)
    few = replace(layout, images_per_class=1, candidates=min(CANDIDATES, layout.candidates))

    def looked_at(layout: Layout) -> float:
        candidates = min(layout.candidates, len(source) / classes)
        return layout.images_per_class if recipe.initializer == "real" else max(candidates, layout.patches)

    def code(progress: Progress) -> None:
        pixels = squares(source, torch.arange(min(STEPS, len(images), len(source))), side).permute(0, 2, 3, 1)
        for image in track(pixels.contiguous().numpy(), len(images), "Encode", progress):
            decode(encode(image, recipe.codec, recipe.quality), recipe.codec, side, side, "new image")

    beginnings: list[Beginning] = [(source.check, IMAGES, 1 + len(held_out) / len(source))]
    decoded = len(source) * 3 * side**2
    kept = decoded <= KEPT
    mentors, learning = schooling(inputs, recipe, source, held_out, side, device, kept=kept)
    beginnings += learning
    generator = torch.Generator().manual_seed(0)
    beginnings += [
        (
            lambda watch: INITIALIZERS[recipe.initializer](source, mentors[0], few, generator, watch),
            CLASSES,
            looked_at(layout) / looked_at(few),
        ),
        (code, STEPS, 1),
    ]
    if recipe.head == "prototypes":
        beginnings += [(partial(prototypes, projector, source, side), CLASSES, 1)]
    seen, how = lessons(recipe, source, images, views)
    beginnings += [(lambda watch: fit_projector(projector, mentors[-1], seen, how, fit, watch), STEPS, 1)]
    if recipe.quantization == "int4":
        beginnings += [(partial(quantize_projector, projector, seen, how, fit), STEPS, 1)]
    beginnings += [(lambda watch: measure(projector.label, mentors, held_out, images, views, watch), STEPS, 1)]
    later = images.nbytes + (decoded if kept else 0)
    costs = [cost(*stage, later) for stage in track(beginnings, len(beginnings), "Plan", progress)]
    found = [cost for cost in costs if cost]
    first = next((place for place, cost in enumerate(found) if cost.stage in TRAININGS), None)
    if kept and first is not None:  # it decodes them all once, as the first stage does
        decoding = found[0].seconds * len(source) / (len(source) + len(held_out))
        found[first] = replace(found[first], seconds=found[first].seconds + decoding)
    return tuple(found)


def schooling(
    inputs: Inputs, recipe: Resolved, source: Source, held_out: Source, side: int, device: torch.device, *, kept: bool
) -> tuple[list[Teacher], list[Beginning]]:
    """Return a teacher and, if the recipe asks for one, its assistant, and what making and checking them begins with.

    What is trained in a build is of the same size here. With `kept` images are decoded once, not in every epoch.
    """
    warm = warmed if kept else lambda begin: begin
    checked = partial(check_teacher, source=held_out, side=side, more=source)

    def untrained(architecture: str) -> Teacher:
        network = average([create(architecture, len(source.classes), side) for _ in recipe.stages])
        return Teacher(network, source.classes, architecture="untrained").to(device)

    beginnings: list[Beginning] = []
    if inputs.trains is None:
        teacher = get_teacher(inputs, recipe, source, side, silent).to(device)
    else:
        teacher = untrained(inputs.trains)
        beginnings += [(warm(partial(get_teacher, inputs, recipe, source, side)), STEPS, 1)]
    beginnings += [(lambda watch: checked(teacher, progress=watch), STEPS, 1)]
    if not recipe.assisted:
        return [teacher], beginnings
    assistant = untrained(recipe.assistant)
    beginnings += [
        (warm(partial(get_assistant, inputs, recipe, source, teacher, side)), STEPS, 1),
        (lambda watch: checked(assistant, who="assistant", progress=watch), STEPS, 1),
    ]
    return [teacher, assistant], beginnings


class EnoughError(Exception):
    """A stage was watched for long enough."""


def warmed(begin: Callable[[Progress], object]) -> Callable[[Progress], object]:
    """Return what begins a stage anew after its first steps, whose images are then decoded."""

    def again(watch: Progress) -> None:
        with contextlib.suppress(EnoughError):
            begin(_until(STEPS))
        begin(watch)

    return again


def _until(steps: int) -> Progress:
    def watch(stage: str, done: int, of: int) -> None:
        if done >= min(steps, of):
            raise EnoughError

    return watch


def cost(begin: Callable[[Progress], object], steps: int, times: float, later: int) -> Cost | None:
    """Return what a stage will take, `times` times over; None for one that reports no steps.

    Args:
        begin: runs the stage until its progress callback raises.
        steps: to watch.
        times: how often the stage counts.
        later: bytes that it will hold beside what a few steps hold.
    """
    ends: list[float] = []
    name, total, enough = "", 0, _until(steps)

    def watch(stage: str, done: int, of: int) -> None:
        nonlocal name, total
        name, total = stage, of
        ends.append(time.monotonic())
        enough(stage, done, of)

    with contextlib.suppress(EnoughError):
        begin(watch)
    if not total:
        return None
    counted = ends[1:] if len(ends) > 2 else ends
    seconds = (counted[-1] - counted[0]) / (len(counted) - 1)
    held = peak()
    return Cost(stage=name, steps=total, seconds=times * total * seconds, memory=held and held + later)


def peak() -> int | None:
    """Return the bytes that this process has held at most; None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held * 1024
