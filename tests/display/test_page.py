"""The page of a report: whole in one file, true to the numbers, safe whatever an archive's texts say."""

import copy
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from math import nan
from typing import Any

import pytest

pytest.importorskip("matplotlib")

import matplotlib

from hellods.display.page import page

from .samples import ACCURACIES, changed, sample, spread

VOID = {"meta", "br"}


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


def cells(source: str, begins: str) -> list[str]:
    """Return the cells of the one row whose name begins so."""
    (row,) = re.findall(rf"<tr><th scope=row>{begins}.*?</tr>", source, re.DOTALL)
    return re.findall("<td>(.*?)</td>", row)


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
    assert cells(whole, f"<code>{arm}</code><br>")[:2] == [last, best]
    assert whole.count(f">{last}</text>") >= 2  # beside its bar, wide and narrow
    assert whole.count(f">{arm}</text>") >= 8  # accuracy, bytes and both curves


def test_answer_pairs_the_seeds() -> None:
    report = sample()
    arms = report["archives"][0]["arms"]
    for arm, values in (("hello", [0.50, 0.60]), ("teacher", [0.48, 0.58])):
        arms[arm]["accuracy"]["last"] = spread(values)
    report["archives"][0]["arms"] = {arm: arms[arm] for arm in ("hello", "teacher")}
    assert "2.0 ± 0.0 points above the teacher's own labels" in Page(page(report)).text


def test_assumed_assets_stand_on_their_own_line(whole: str) -> None:
    assert cells(whole, "assumed at hand, not in the total: <code>hello-tiny</code>")[-1] == "2,954,544"
    assert "<td>361,536</td>\n<td>3,316,080</td>" in whole


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
    arm["accuracy"] = {"last": spread([0.0] * 3), "best": {**spread([0.0] * 3), "epochs": [30] * 3}}
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
    first, second = cells(source.partition("c10.hello</h2>")[0], "<code>full</code>")
    assert (" ± " in first, second) == (True, "–")
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
