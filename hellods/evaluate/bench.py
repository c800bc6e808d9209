"""Bench: the real images and the teacher, had once for all archives that are compared."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save

from hellods.device import Clock
from hellods.digests import software
from hellods.distill.mentors import load_given_teacher, training_of
from hellods.distill.recipe import Inputs, Recipe
from hellods.evaluate.question import Question
from hellods.forecast import Trial, cost, warmed
from hellods.format.files import replacing
from hellods.progress import Progress
from hellods.record import to_json
from hellods.sources.source import Source, open_source
from hellods.teachers.teacher import Teacher, check_teacher
from hellods.teachers.training import Training, train_teacher, untrained
from hellods.teachers.weights import fit_weights, read_weights


class Bench:
    """What archives are compared on.

    Images are decoded before anything learns from them. Where outcomes are kept, images are at first only hashed, which
    tells whether they are the same as then, and decoded once a student is missing.

    Args:
        question: names the real images and the teacher.
        device: where the teacher answers.
        folder: where a teacher that was trained here is kept: other hardware, or another number of threads, would train
            another one, and the students of the first could not be used any more.
        progress: told of what takes long.
        train: train the teacher that is to be trained; else an untrained one, which answers as fast, stands for it.

    Raises:
        OptionError: what the question says of the teacher cannot be.
    """

    def __init__(
        self, question: Question, device: torch.device, folder: Path, progress: Progress, *, train: bool = True
    ) -> None:
        self.question, self.device, self.folder, self.progress, self.train = question, device, folder, progress, train
        self.begun = any(folder.glob("*.json"))
        self.inputs = None if question.teacher is None else _inputs(question, question.teacher)
        self._sources: dict[int, tuple[Source, Source]] = {}
        self._decoded: dict[int, bool] = {}  # seed -> whether its images were decoded, or only hashed
        self._teachers: dict[tuple[int, int, Training | None], tuple[Teacher, float | None]] = {}
        self._untrained: list[Callable[[Progress], Teacher]] = []

    def sources(self, seed: int) -> tuple[Source, Source]:
        """Return the images to learn from and those held out, as `open_source`; nothing is decoded yet."""
        if seed not in self._sources:
            self._sources[seed] = open_source(self.question.data, seed=seed)
        return self._sources[seed]

    def check(self, seed: int) -> None:
        """Read every image of these sources once, and decode it unless outcomes are kept.

        Raises:
            SourceError: names the files that cannot be used.
        """
        if seed not in self._decoded:
            self._check(seed, decode=not self.begun)

    def decode(self, seed: int) -> None:
        """Decode every image of these sources once, if `check` did not.

        Raises:
            SourceError: names the files that cannot be used.
        """
        if not self._decoded.get(seed):
            self._check(seed, decode=True)

    def teacher(self, recipe: Recipe, side: int) -> tuple[Teacher, float | None] | None:
        """Return the teacher for images of that side, and its accuracy on held-out ones; None if none is named.

        One that is not trained yet has no accuracy.

        Raises:
            HelloError: it cannot be had, or does not know the classes of the data.
        """
        inputs = self.inputs
        if inputs is None:
            return None
        if recipe.assisted:  # the stages are those of its assistant; its teacher was given
            recipe = replace(recipe, teacher_stages=None)
        training = training_of(inputs.network(side), inputs, recipe, side) if inputs.trained else None
        key = (recipe.seed, side, training)
        if key not in self._teachers:
            source, held_out = self.sources(recipe.seed)
            teacher, trained = (
                self._trained(training) if training else (load_given_teacher(inputs, source.classes, side), True)
            )
            teacher, weak, accuracy = teacher.to(self.device), self.question.allow_weak_teacher, None
            if trained:
                accuracy = check_teacher(teacher, held_out, side, more=source, allow_weak=weak, progress=self.progress)
            self._teachers[key] = teacher, accuracy
        return self._teachers[key]

    def training(self) -> list[float]:
        """Return the seconds that each teacher takes that is to be trained, from its first steps."""
        now = Clock(self.device).now
        return [found.seconds for begin in self._untrained if (found := cost(Trial(warmed(begin)), now=now))]

    def _trained(self, training: Training) -> tuple[Teacher, bool]:
        """Return the teacher, and whether it is trained."""
        source, _ = self.sources(training.seed)

        def learn(progress: Progress) -> Teacher:
            return train_teacher(training, source, device=self.device, progress=progress)

        decides = [to_json(training), source.provenance()["sha256"], software()]
        file = self.folder / f"teacher-{sha256(json.dumps(decides).encode()).hexdigest()[:16]}.safetensors"
        trained = file.exists()
        if self.train and not trained:
            self.decode(training.seed)
            teacher = learn(self.progress)
            file.parent.mkdir(parents=True, exist_ok=True)
            state = {name: value.cpu().contiguous() for name, value in teacher.network.state_dict().items()}
            with replacing(file, overwrite=True) as temporary:
                temporary.write_bytes(save(state))
            return teacher, True
        teacher = untrained(training, len(source.classes))
        if trained:
            fit_weights(teacher.network, read_weights(str(file)), str(file), len(source.classes))
        else:
            self._untrained.append(learn)
        return teacher, trained

    def _check(self, seed: int, *, decode: bool) -> None:
        for source in self.sources(seed):
            source.check(self.progress, decode=decode)
        self._decoded[seed] = decode


def _inputs(question: Question, teacher: str) -> Inputs:
    return Inputs(
        data=question.data,
        teacher=teacher,
        teacher_weights=question.teacher_weights,
        teacher_mean=question.teacher_mean,
        teacher_std=question.teacher_std,
    )
