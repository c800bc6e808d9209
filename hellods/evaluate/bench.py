"""Bench: the real images and the teacher, had once for all archives that are compared."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save

from hellods.distill.checkpoints import fit_weights, read_weights
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.sources import Source, open_source
from hellods.distill.teacher import Teacher, check_teacher, get_teacher
from hellods.evaluate.question import Question
from hellods.format.files import replacing
from hellods.nets import create
from hellods.progress import Progress

TRAINED = "train:"


class Bench:
    """What archives are compared on.

    Args:
        question: names the real images and the teacher.
        device: where the teacher answers.
        folder: where a teacher that was trained here is kept. A GPU, or another number of threads, would train another
            one, and no student of the first would be of use to an evaluation that goes on.
        progress: told of what takes long.

    Raises:
        RecipeError: what the question says of the teacher cannot be.
    """

    def __init__(self, question: Question, device: torch.device, folder: Path, progress: Progress) -> None:
        self.question, self.device, self.folder, self.progress = question, device, folder, progress
        self.inputs = None if question.teacher is None else _inputs(question, question.teacher, device)
        self._sources: dict[int, tuple[Source, Source]] = {}
        self._checked: list[Source] = []
        self._teachers: dict[tuple[int, int, int], tuple[Teacher, float]] = {}
        self._files: dict[Path, Teacher] = {}

    def sources(self, seed: int) -> tuple[Source, Source]:
        """Return the images to learn from and those held out, as `open_source`; nothing is decoded yet."""
        if seed not in self._sources:
            self._sources[seed] = open_source(self.question.data, seed=seed)
        return self._sources[seed]

    def check(self, seed: int) -> None:
        """Decode every image of these sources once.

        Raises:
            SourceError: names the files that cannot be used.
        """
        for source in self.sources(seed):
            if source not in self._checked:
                source.check(self.progress)
                self._checked.append(source)

    def teacher(self, recipe: Recipe, side: int) -> tuple[Teacher, float] | None:
        """Return the teacher for images of that side, and its accuracy on held-out ones; None if none is named.

        Raises:
            HelloError: it cannot be had, or does not know the classes of the data.
        """
        if self.inputs is None:
            return None
        key = (recipe.seed, recipe.teacher_epochs, side)
        if key not in self._teachers:
            source, held_out = self.sources(recipe.seed)
            teacher = self._get(self.inputs, recipe, side).to(self.device)
            weak = self.question.allow_weak_teacher
            accuracy = check_teacher(teacher, held_out, side, more=source, allow_weak=weak, progress=self.progress)
            self._teachers[key] = teacher, accuracy
        return self._teachers[key]

    def keep(self) -> None:
        """Write the teachers that were trained here."""
        for file, teacher in self._files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            state = {name: value.cpu().contiguous() for name, value in teacher.network.state_dict().items()}
            with replacing(file, overwrite=True) as temporary:
                temporary.write_bytes(save(state))
        self._files.clear()

    def _get(self, inputs: Inputs, recipe: Recipe, side: int) -> Teacher:
        source, _ = self.sources(recipe.seed)
        if not inputs.teacher.startswith(TRAINED):
            return get_teacher(inputs, recipe, source, side, self.progress)
        name, mean, std = inputs.teacher.removeprefix(TRAINED), inputs.teacher_mean, inputs.teacher_std
        decides = [name, source.provenance()["sha256"], side, recipe.seed, recipe.teacher_epochs, mean, std]
        file = self.folder / f"teacher-{sha256(json.dumps(decides).encode()).hexdigest()[:16]}.safetensors"
        if file.exists():
            network = create(name, len(source.classes), side)
            fit_weights(network, read_weights(str(file)), str(file), len(source.classes))
            return Teacher(network, source.classes, architecture=name, mean=mean, std=std)
        teacher = self._files[file] = get_teacher(inputs, recipe, source, side, self.progress)
        return teacher


def _inputs(question: Question, teacher: str, device: torch.device) -> Inputs:
    return Inputs(
        data=question.data,
        teacher=teacher,
        teacher_weights=question.teacher_weights,
        teacher_mean=question.teacher_mean,
        teacher_std=question.teacher_std,
        device=str(device),
    )
