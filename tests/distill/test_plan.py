"""The plan names a build's stages with their steps, costs little, and leaves everything as it was."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from hellods.distill import plan as module
from hellods.distill.arrange import prepare
from hellods.distill.build import build, carry_out
from hellods.distill.mentors import get_teacher
from hellods.distill.plan import plan
from hellods.distill.recipe import Inputs, Recipe
from hellods.distill.resume import Work
from hellods.forecast import Cost, Trial, cost, warmed
from hellods.sources.source import Folder

RECIPE = Recipe(images_per_class=2, candidates=15, teacher_epochs=2, fit_views=256, fit_batch_size=64)


@pytest.mark.parametrize("knobs", [{"quantization": "int4"}, {"head": "prototypes", "quantization": "int8"}])
def test_plan_has_the_stages_and_steps_of_the_build_and_writes_nothing(
    knobs: dict[str, Any], few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs, recipe = Inputs(data=str(few_digits), allow_weak_teacher=True), replace(RECIPE, **knobs)
    costs = plan(prepare(inputs, recipe))
    assert not list(tmp_path.iterdir())
    ended: dict[str, int] = {}
    build(inputs, recipe, out=tmp_path / "x.hello", progress=lambda stage, done, total: ended.setdefault(stage, total))
    for stage in ("Base model", "Verify"):
        del ended[stage]
    assert [(cost.stage, cost.steps) for cost in costs] == list(ended.items())
    assert ("Quantize" in ended) == (knobs["quantization"] == "int4")
    assert all(cost.seconds > 0 for cost in costs)


def test_setting_that_was_planned_is_built_as_any_other(few_digits: Path, tmp_path: Path) -> None:
    inputs = Inputs(data=str(few_digits), allow_weak_teacher=True)
    setting = prepare(inputs, RECIPE)
    plan(setting)
    with Work(tmp_path / "planned.hello") as kept:
        planned = carry_out(setting, kept)
    assert planned.content_id == build(inputs, RECIPE, out=tmp_path / "x.hello").content_id


def test_teacher_of_the_users_own_is_not_planned_to_be_trained(few_digits: Path, tmp_path: Path) -> None:
    code = "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
    (tmp_path / "net.py").write_text(code)
    inputs = Inputs(data=str(few_digits), teacher=f"{tmp_path / 'net.py'}:net")
    recipe = replace(RECIPE, fit_views=0, assistant="none", teacher_epochs=Recipe.teacher_epochs)
    costs = plan(prepare(inputs, recipe))
    assert [cost.stage for cost in costs] == ["Data", "Teacher check", "Images", "Encode", "Check"]


@pytest.mark.parametrize(("reads", "seconds"), [(True, [1.0, 1.8]), (False, [1.0])])
def test_the_first_training_decodes_what_the_first_stage_did(
    reads: bool, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cost(trial: Trial, later: int, **_: object) -> Cost | None:
        none = trial.steps == module.IMAGES and not reads  # as for images that stand in memory
        return None if none else Cost(stage="Fit", steps=1, seconds=1.0, memory=None)

    pytest.importorskip("sklearn")
    monkeypatch.setattr(module, "cost", cost)
    found = [round(cost.seconds, 2) for cost in plan(prepare(Inputs(data="digits"), RECIPE))]
    assert sorted(set(found)) == seconds


def test_trainings_are_watched_when_their_images_are_decoded(few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Folder.image

    def slow(source: Folder, index: int) -> Tensor:
        time.sleep(0.1)
        return image(source, index)

    monkeypatch.setattr(Folder, "image", slow)
    inputs, recipe = Inputs(data=str(few_digits)), replace(RECIPE, teacher_stages=(2,), flip=False)
    begin, again = (partial(get_teacher, prepare(inputs, recipe)) for _ in range(2))
    cold, warm = cost(Trial(begin)), cost(Trial(warmed(again)))
    assert cold
    assert warm
    assert (cold.stage, cold.steps) == (warm.stage, warm.steps)
    assert warm.seconds < 0.5 * cold.seconds


def test_assistant_is_planned_as_it_is_built(few_digits: Path, tmp_path: Path) -> None:
    code = "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
    (tmp_path / "net.py").write_text(code)
    inputs = Inputs(data=str(few_digits), teacher=f"{tmp_path / 'net.py'}:net", allow_weak_teacher=True)
    costs = plan(prepare(inputs, RECIPE))
    ended: dict[str, int] = {}
    build(inputs, RECIPE, out=tmp_path / "x.hello", progress=lambda stage, done, total: ended.setdefault(stage, total))
    stages = [cost.stage for cost in costs]
    assert stages[1:4] == ["Teacher check", "Assistant", "Assistant check"]
    assert {cost.stage: cost.steps for cost in costs}.items() <= ended.items()
