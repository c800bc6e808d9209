"""The page of a report: whole in one file, true to the numbers, safe whatever an archive's texts say."""

import copy
import random
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from math import nan
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import matplotlib

from hellods.evaluate.page import page

VOID = {"meta", "br"}
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
    """Return a report of one archive, with numbers made up but of the right size."""
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
            "last": _summary(values),
            "best": {**_summary([value + 0.006 for value in values]), "epochs": [rng.choice(epochs) for _ in values]},
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


def _summary(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    return {"mean": mean, "std": spread if len(values) > 1 else None, "values": values}


class Page(HTMLParser):
    """What a browser finds: tags that close, ids, texts, and whatever points elsewhere."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(value for name, value in attrs if name == "id" and value)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """Return a smaller sample after a change of the report or of its archive."""
    report = sample(arms=("hello", "teacher", "hard", "full"))
    change(report, report["archives"][0])
    return report


@pytest.fixture(scope="module")
def whole() -> str:
    return page(sample())


def test_page_needs_nothing_but_itself(whole: str) -> None:
    found = Page(whole)
    assert found.tags["script"] == found.tags["link"] == found.tags["img"] == 0
    assert all(link.startswith("#") for link in found.links)
    assert not re.search(r"url\((?!#)|@import", whole)


def test_ids_are_unique_and_every_reference_is_met(whole: str) -> None:
    found = Page(whole)
    assert set(found.ids.values()) == {1}
    assert {*found.links, *re.findall(r"url\((#[^)]*)\)", whole)} <= {f"#{name}" for name in found.ids}


def test_same_report_is_the_same_page(whole: str) -> None:
    assert page(sample()) == whole


def test_settings_of_matplotlib_are_neither_heard_nor_changed(whole: str) -> None:
    own: dict[str, Any] = {"font.size": 30.0, "svg.fonttype": "path", "axes.grid": True}
    with matplotlib.rc_context(own):
        assert page(sample()) == whole
        assert {key: matplotlib.rcParams[key] for key in own} == own


def test_report_is_left_as_it_was() -> None:
    report = changed(lambda _, archive: None)
    before = copy.deepcopy(report)
    page(report)
    assert report == before


@pytest.mark.parametrize("arm", ACCURACIES)
def test_every_arm_is_there_with_mean_spread_and_best(whole: str, arm: str) -> None:
    accuracy = sample()["archives"][0]["arms"][arm]["accuracy"]
    last, best = (f"{100 * accuracy[which]['mean']:.1f} ± {100 * accuracy[which]['std']:.1f}" for which in accuracy)
    (row,) = re.findall(rf"<code>{arm}</code><br>.*?</tr>", whole)
    assert f"<td>{last}</td><td>{best}</td>" in row
    assert whole.count(f">{last}</text>") >= 2  # beside its bar, wide and narrow
    assert whole.count(f">{arm}</text>") >= 8  # accuracy, bytes and both curves


def test_answer_pairs_the_seeds() -> None:
    report = sample()
    arms = report["archives"][0]["arms"]
    for arm, values in (("hello", [0.50, 0.60]), ("teacher", [0.48, 0.58])):
        arms[arm]["accuracy"]["last"] = _summary(values)
    report["archives"][0]["arms"] = {arm: arms[arm] for arm in ("hello", "teacher")}
    assert "<b>2.0 ± 0.0 points above</b> the teacher's own labels" in page(report)


def test_assumed_assets_stand_on_their_own_line(whole: str) -> None:
    (row,) = re.findall(r"<tr><th scope=row>assumed at hand.*?</tr>", whole)
    assert "hello-tiny" in row
    assert "<td>2,954,544</td>" in row
    assert "<td>361,536</td><td>3,316,080</td>" in whole


def test_command_digests_and_reasons_are_there() -> None:
    report = changed(lambda _, archive: archive["not_run"].update(full="needs the training split"))
    text = Page(page(report)).text
    for part in (report["command"], "5f" * 32, "a1" * 32, "0c" * 32, "3e" * 32, "AMD EPYC", "needs the training split"):
        assert part in text


HOSTILE = "<script>alert(1)</script>&amp;\"'$x^2$\n\x00\u202e"


def test_texts_of_others_are_shown_and_never_read_as_html(whole: str) -> None:
    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return value + HOSTILE if isinstance(value, str) else value

    report = spoil(changed(lambda _, archive: archive["arms"].update({HOSTILE: archive["arms"].pop("hard")})))
    report["archives"][0]["not_run"] = {HOSTILE: HOSTILE}
    report["versions"][HOSTILE] = HOSTILE
    source = page(report)
    found = Page(source)
    assert found.tags["script"] == 0
    assert set(found.tags) == set(Page(whole).tags)
    assert "airplane<script>alert(1)</script>&amp;\"'$x^2$" in found.text
    assert "\u202e" not in source
    assert "\x00" not in source


def test_one_seed_has_no_spread() -> None:
    text = Page(page(sample(seeds=1))).text
    assert "One seed" in text
    assert not re.search(r"\d ±", text)


def without_full(_: dict[str, Any], archive: dict[str, Any]) -> None:
    del archive["arms"]["full"]
    archive["not_run"]["full"] = "left out"


def without_hello(_: dict[str, Any], archive: dict[str, Any]) -> None:
    del archive["arms"]["hello"]


def without_arms(_: dict[str, Any], archive: dict[str, Any]) -> None:
    archive["arms"].clear()


def without_teacher(report: dict[str, Any], archive: dict[str, Any]) -> None:
    report["teacher"] = archive["teacher"] = archive["same_teacher"] = None
    for arm in archive["arms"].values():
        if arm["fidelity"]:
            arm["fidelity"].update(agreement=None, kl=None)


def without_scores(_: dict[str, Any], archive: dict[str, Any]) -> None:
    archive["scores"] = dict.fromkeys(archive["scores"])


def without_base(_: dict[str, Any], archive: dict[str, Any]) -> None:
    archive["base"] = None


def without_fidelity(_: dict[str, Any], archive: dict[str, Any]) -> None:
    for arm in archive["arms"].values():
        arm["fidelity"] = None


def without_curves(_: dict[str, Any], archive: dict[str, Any]) -> None:
    for arm in archive["arms"].values():
        arm["curves"] = []


def with_one_arm_at_zero(_: dict[str, Any], archive: dict[str, Any]) -> None:
    arm = archive["arms"]["hello"]
    archive["arms"] = {"hello": arm}
    arm["accuracy"] = {"last": _summary([0.0] * 3), "best": {**_summary([0.0] * 3), "epochs": [30] * 3}}
    arm["per_class"] = [0.0] * len(archive["classes"])


def with_a_student_that_diverged(_: dict[str, Any], archive: dict[str, Any]) -> None:
    curve = archive["arms"]["hard"]["curves"][0]
    curve["loss"] = [nan if epoch > 60 else 1.0 for epoch in curve["epochs"]]
    for curve in archive["arms"]["teacher"]["curves"]:
        curve["loss"] = [None] * len(curve["epochs"])


def with_one_point_a_curve(_: dict[str, Any], archive: dict[str, Any]) -> None:
    for arm in archive["arms"].values():
        for curve in arm["curves"]:
            curve.update(epochs=[3], accuracy=[0.1], loss=[2.3])


def with_classes_in_other_scripts(_: dict[str, Any], archive: dict[str, Any]) -> None:
    archive["classes"][0] = "飛行機"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_full, "left out"),
        (without_hello, "was not run"),
        (without_arms, "was not run"),
        (without_teacher, "none"),
        (without_scores, "not measured"),
        (without_base, "361,536"),
        (without_fidelity, "Not measured."),
        (without_curves, "points above"),
        (with_one_arm_at_zero, "0.0 ± 0.0"),
        (with_a_student_that_diverged, "training loss"),
        (with_one_point_a_curve, "training loss"),
        (with_classes_in_other_scripts, "飛行機"),
    ],
)
def test_what_is_missing_or_odd_leaves_a_page(change: Callable[..., object], says: str) -> None:
    source = page(changed(change))
    assert says in Page(source).text
    assert not re.search(r">(None|nan)\b", source)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("same_data", False, "not made from this data"),
        ("same_teacher", False, "not made with this teacher"),
        ("assistant", {"architecture": "convnet3", "held_out_accuracy": "0.71"}, "those of an assistant"),
        ("assistant", "<b>odd</b>", "&lt;b&gt;odd&lt;/b&gt;"),
    ],
)
def test_foreign_data_and_teachers_and_assistants_are_said(whole: str, key: str, value: object, says: str) -> None:
    assert says not in whole
    assert says in page(changed(lambda _, archive: archive.update({key: value})))


def test_archives_stand_side_by_side_then_one_by_one() -> None:
    report = changed(lambda _, archive: None)
    report["archives"] += changed(lambda _, archive: archive.update(file="other.hello"))["archives"]
    del report["archives"][1]["arms"]["full"]
    source = page(report)
    assert re.findall("<h2>(.*?)</h2>", source) == ["Side by side", "c10.hello", "other.hello", "To do it again"]
    assert re.search(r"<tr><th scope=row><code>full</code></th><td>\S+ ± \S+</td><td>&ndash;</td></tr>", source)
    assert set(Page(source).ids.values()) == {1}


def test_of_many_classes_the_plot_shows_some_and_the_table_all() -> None:
    source = page(sample(classes=tuple(f"class {k}" for k in range(1000))))
    (plot,) = re.findall(r'<svg[^>]*class="wide"[^>]*"Accuracy of every class".*?</svg>', source, re.DOTALL)
    assert len(re.findall(r">class \d+</text>", plot)) == 40
    assert ">960 more</text>" in plot
    assert source.count("<th scope=row>class ") == 1000


def test_archives_without_any_arm_leave_a_page() -> None:
    report = changed(without_arms)
    report["archives"] *= 2
    assert Page(page(report)).text.count("was not run") == 2
