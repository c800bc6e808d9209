"""`hellods build`: an archive from real images and a teacher."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hellods.distill.recipe import FitOn, Initializer, Inputs, Preset, Recipe
from hellods.distill.toml import read_text
from hellods.errors import OptionError
from hellods.format.archive import Archive
from hellods.format.files import check_target
from hellods.format.header import Codec
from hellods.labels.config import Head, Precision, Quantization, needs_base
from hellods.views.rule import Mix

from .defaults import choose_recipe, note, outdated
from .inspect import parts, title
from .loop import loop
from .malloc import reuse_memory
from .options import numbers, only, options_of, three
from .progress import clock, progress, whole
from .text import facts, row

if TYPE_CHECKING:
    from hellods.distill.build import Report
    from hellods.distill.plan import Cost

logger = logging.getLogger("hellods")

option = options_of(Inputs, Recipe)


@click.command()
@click.argument("data")
@click.option("--out", metavar="FILE", help="The `.hello` file to write; --plan needs none.")
@option(
    "preset",
    "How long to fit the projector. fast: a tenth of the default, at twice the rate; best: twice the default.",
    click.Choice(get_args(Preset)),
)
@click.option(
    "--recipe",
    metavar="TOML",
    is_eager=True,
    callback=choose_recipe,
    help="File of options, as `hellods inspect --recipe` prints them; options on the command line override it, and "
    "what followed by default from a value that they override is worked out anew.",
)
@option("images_per_class", "Synthetic images per class.")
@option(
    "base",
    "Base model: hello-convnet, hello-tiny, MODEL/TAG of open_clip, hf-hub:OWNER/NAME or local-dir:FOLDER.  [default: "
    "hello-convnet up to 32 px, else hello-tiny]",
    click.STRING,
)
@option(
    "teacher",
    "Teacher: train:NETWORK, FILE.py:FUNCTION, or a network of torchvision or timm by name; `train` alone trains a "
    "convnet3 up to 64 px, else a resnet18.",
)
@option("teacher_weights", "The teacher's weights: safetensors, or a PyTorch checkpoint.", click.STRING)
@option(
    "teacher_mean",
    "Mean that the teacher expects, per channel, for pixels in 0..1; students get images normalized by it too.",
    three,
    metavar="R,G,B",
)
@option("teacher_std", "Standard deviation that the teacher expects, likewise.", three, metavar="R,G,B")
@option("allow_weak_teacher", "Build even if the teacher is near chance or orders classes differently.")
@option(
    "assistant",
    "Network that learns from a given teacher, and teaches the projector in its place; `none` for no assistant.  "
    "[default: convnet3 up to 64 px, else resnet18]",
    click.STRING,
    metavar="NETWORK",
)
@option(
    "teacher_epochs",
    "Epochs in which the learning rate of a teacher that is trained here, or of the assistant, falls to nothing; it "
    "learns until the last of --teacher-stages.  [default: 12, or 24 from 25 images a class]",
    int,
)
@option(
    "teacher_stages",
    "Epochs of that training after which the network is kept, to average the logits of all kept.  [default: 1,2 below "
    "5 images a class, later ones on fewer than 640 real images, else the last]",
    numbers,
    metavar="N,…",
)
@click.option(
    "--class-names", metavar="FILE", help="A text for each class folder: lines `folder: text`, or a JSON object."
)
@option(
    "side",
    "Side of the synthetic images in pixels.  [default: that of the real images, their median, at most 224]",
    int,
)
@option("initializer", "Start from RDED's patches, or from random real images.", click.Choice(get_args(Initializer)))
@option("factor", "Patches along each side of an image.  [default: 2 for patches from 128 px, else 1]", int)
@option("candidates", "Real images per class that patches are chosen from.")
@option("crops", "Random crops tried per candidate image.")
@option("codec", "Image format in the file.", click.Choice(get_args(Codec)))
@option("quality", "Image quality, 1 to 100.  [default: 75 up to 64 px, else 90; png is lossless]", int)
@option("flip", "Mirror half of the views.  [default: yes, but not digits]", bool)
@option("mix", "How pairs of views are mixed.", click.Choice(get_args(Mix)))
@option(
    "head",
    "Head starts at text embeddings of class names, or at mean image features of the classes, which are stored.",
    click.Choice(get_args(Head)),
)
@option("template", "Prompt around each class name, with {}; several, separated by |, are averaged.")
@option("encoder_rank", "LoRA rank on the layers of the image tower.  [default: 16 on hello-convnet, else 6]", int)
@option("head_rank", "LoRA rank on the classification head.")
@option("quantization", "Number format of the stored deltas.", click.Choice(get_args(Quantization)))
@option(
    "label_precision",
    "Arithmetic that labels are made in; bf16 and fp16 are faster on a GPU.",
    click.Choice(get_args(Precision)),
)
@option(
    "embed_base", "Store the base model's image tower in the file, up to 128 MiB, so that labels need no other.", bool
)
@option(
    "fit_on",
    "Fit the projector on views of the synthetic images, or of all real ones.  "
    "[default: own where a network is trained here, else real]",
    click.Choice(get_args(FitOn)),
)
@option(
    "fit_views",
    "Number of views to fit the projector on.  [default: 30 per real image, at most 160,000, or 30,000 if the base "
    "model takes more than 64 px; by the preset; beyond 100 synthetic images times √(images / 100)]",
    int,
)
@option("fit_batch_size", "Batch size of the projector's fit.  [default: 32, fewer above 224 px]", int)
@option(
    "fit_learning_rate",
    "Learning rate of the deltas on the image tower, by Muon.  [default: 0.004, 0.008 with --preset fast]",
    float,
)
@option("head_learning_rate", "Learning rate of the head, by AdamW.")
@option(
    "hard_weight",
    "Weight of cross-entropy with the true class in the fit.  [default: 0.1 on real images, else 0]",
    float,
)
@option("seed", "Random seed of the whole build.")
@option("device", "Device to compute on: cpu, cuda, cuda:1, …")
@option("name", "Name of the archive.  [default: that of the data]", click.STRING)
@option("license", "License of the archive, an SPDX expression.")
@option("source_url", "Where the real images come from.", click.STRING)
@click.option(
    "--plan", "only_plan", is_flag=True, help="Estimate time and memory of each stage from a few steps, and stop."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(
    data: str, out: str | None, class_names: str | None, only_plan: bool, overwrite: bool, quiet: bool, **knobs: Any
) -> None:
    """Make a `.hello` file from the real images in DATA.

    DATA is a folder with train/ and val/ (or test/), each with a folder of images for every class; or a folder of
    class folders, of which a fifth is held out; or `digits`, real handwritten ones.

    What a long build has done is kept in a folder `.FILE.build` beside FILE until it ends: after an interruption, the
    same command goes on from there.
    """
    context = click.get_current_context()
    if out is None and not only_plan:
        raise click.UsageError("Missing option '--out'.")
    anew = outdated(context)
    recipe = Recipe(**only(Recipe, knobs | dict.fromkeys(anew)))
    descriptions = read_names(Path(class_names)) if class_names else None
    inputs = Inputs(data=data, descriptions=descriptions, **only(Inputs, knobs))
    with progress(quiet) as draw:
        if anew:
            logger.warning(note(knobs["recipe"], anew))
        reuse_memory()
        draw("Load torch", 0, 1)
        from hellods.distill.arrange import prepare
        from hellods.distill.build import carry_out
        from hellods.distill.plan import plan
        from hellods.distill.resume import Work

        draw("Load torch", 1, 1)
        if only_plan:
            click.echo(table(plan(prepare(inputs, recipe, draw), draw)))
            return
        assert out is not None
        check_target(out, overwrite)  # before seconds go into the plan
        with Work(out) as kept:
            setting = prepare(inputs, recipe, draw)
            if not quiet:
                draw = whole(draw, {cost.stage: cost.seconds for cost in plan(setting, draw)})
            report = carry_out(setting, kept, overwrite=overwrite, progress=draw)
    click.echo(made(report, inputs.base))


def table(costs: Sequence["Cost"]) -> str:
    """Return a line for each stage and one for all: steps, time, and memory in millions of bytes."""
    held = max((cost.memory for cost in costs), default=0)
    rows = [("", "steps", "time", "memory")]
    rows += [(cost.stage, f"{cost.steps:,}", clock(cost.seconds), megabytes(cost.memory)) for cost in costs]
    rows += [("in all", "", clock(sum(cost.seconds for cost in costs)), megabytes(held))]
    return "\n".join(f"{stage:14}{steps:>10}{time:>9}{memory:>12}" for stage, steps, time, memory in rows)


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def made(report: "Report", base: str | None) -> str:
    """Return what a build says at its end: the file's bytes and accuracies, the seconds, and the loop to paste."""
    with Archive.open(report.path) as archive:
        header = archive.header
        size = report.path.stat().st_size
        heading = title(archive, size)
    assert header.projector
    lines = [
        *heading,
        *parts(header, size),
        "",
        row("teacher", facts(header.teacher)),
        row("projector", facts(header.metrics)),
        row("took", [f"{stage} {clock(seconds)}" for stage, seconds in report.seconds.items()]),
        "\nTrain from it:\n",
        loop(str(report.path), header.images.height, base if needs_base(header.projector) else None),
    ]
    return "\n".join(lines)


def read_names(path: Path) -> dict[str, str]:
    """Return class folder -> text from a JSON object, or from lines `folder: text`.

    Raises:
        OptionError: the file is missing, or of neither form.
    """
    try:
        text = read_text(path)
    except OSError as cause:
        raise OptionError(f"{path}: class names cannot be read: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise OptionError(f"{path}: class names are not text in UTF-8 or UTF-16") from cause
    return names_of_json(path, text) if text.lstrip().startswith("{") else names_of_lines(path, text)


def names_of_json(path: Path, text: str) -> dict[str, str]:
    try:
        names: dict[str, Any] = json.loads(text)
    except ValueError as cause:
        raise OptionError(f"{path}: not a JSON object: {cause}") from cause
    for folder, name in names.items():
        if not isinstance(name, str):
            raise OptionError(f"{path}: {folder!r} needs a text, found {name!r}")
    return names


def names_of_lines(path: Path, text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        folder, _, name = (part.strip() for part in line.partition(":"))
        if folder in names:
            raise OptionError(f"{path}:{number}: {folder!r} appears twice")
        if folder and name:
            names[folder] = name
        elif line.strip():
            raise OptionError(f"{path}:{number}: found {line!r}, expected `folder: text`")
    return names
