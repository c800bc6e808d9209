"""Every number of a report follows from the runs that are kept beside it."""

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from hellods.display.markdown import markdown
from hellods.evaluate import evaluate, report
from hellods.evaluate.arms import ARMS
from hellods.evaluate.evaluate import prepare
from hellods.evaluate.question import Question
from hellods.format.archive import Archive


def test_every_arm_runs(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    assert (list(archive["arms"]), archive["not_run"]) == (list(ARMS), {})


def test_report_knows_its_archive_and_its_question(read: dict[str, Any], digits_archive: Path) -> None:
    (archive,) = read["archives"]
    with Archive.open(digits_archive) as opened:
        assert archive["content_id"] == opened.content_id
    facts = ("file", "images", "images_per_class", "side", "steps", "same_data", "same_teacher", "student_parameters")
    assert [archive[name] for name in facts] == ["digits.hello", 20, 2, 32, 4, True, True, 320_010]
    assert (read["seeds"], read["precision"], read["device"]) == ([0, 1], "fp32", "cpu")
    assert (read["data"]["images"], read["data"]["held_out"]["images"]) == (150, 50)
    assert read["teacher"] == archive["teacher"]
    assert read["teacher"]["architecture"] == "convnet3"
    assert read["command"] == "hellods evaluate …"
    assert set(read["versions"]) == {"hellods", "torch", "torchvision", "open_clip_torch", "timm"}


def test_every_number_of_an_arm_follows_from_the_kept_runs(
    read: dict[str, Any], whole: Path, digits_archive: Path, everything: Question
) -> None:
    plan = prepare([str(digits_archive)], everything, whole)
    for name, arm in read["archives"][0]["arms"].items():
        values = [json.loads(run.file.read_text()) for run in plan.runs if run.name == name]
        outcomes = [value["outcome"] for value in values]
        assert len(outcomes) == 2
        last = [o["accuracy"] for o in outcomes]
        best = [max(o["curve"]) for o in outcomes]
        assert arm["accuracy"]["last"] == {
            "mean": pytest.approx(mean(last), abs=1e-6), "std": pytest.approx(stdev(last), abs=1e-6), "values": last,
        }  # fmt: skip
        assert arm["accuracy"]["best"]["values"] == best
        for o, epoch in zip(outcomes, arm["accuracy"]["best"]["epochs"], strict=True):
            assert dict(zip(o["epochs"], o["curve"], strict=True))[epoch] == max(o["curve"])
        assert arm["per_class"] == pytest.approx(
            [mean(pair) for pair in zip(*(o["per_class"] for o in outcomes), strict=True)], abs=1e-6
        )
        assert [c["accuracy"] for c in arm["curves"]] == [o["curve"] for o in outcomes]
        assert [c["loss"] for c in arm["curves"]] == [o["losses"] for o in outcomes]
        for part in ("images", "labels"):
            assert arm["bytes"][part] == round(mean(v["bytes"][part] for v in values))
        for part in ("views", "student"):
            assert arm["seconds_per_epoch"][part] == pytest.approx(
                mean(o["seconds"][part] for o in outcomes) / 2, abs=1e-6
            )
        assert arm["flops_per_epoch"]["student"] == outcomes[0]["flops"]["student"] * 20
        if outcomes[0]["fidelity"] is None:
            assert arm["fidelity"] is None
        else:
            for fact in ("agreement", "entropy", "calibration_error"):
                assert arm["fidelity"][fact] == pytest.approx(mean(o["fidelity"][fact] for o in outcomes), abs=1e-6)
            assert arm["fidelity"]["kl"]["4"] == pytest.approx(
                mean(o["fidelity"]["kl"]["4"] for o in outcomes), abs=1e-6
            )


def test_the_teachers_own_labels_agree_with_it(read: dict[str, Any]) -> None:
    arms = read["archives"][0]["arms"]
    assert arms["teacher"]["fidelity"]["agreement"] == arms["random-teacher"]["fidelity"]["agreement"] == 1.0
    assert arms["hard"]["fidelity"] is arms["full"]["fidelity"] is None


def test_a_student_that_is_sent_its_labels_makes_none(read: dict[str, Any]) -> None:
    arms = read["archives"][0]["arms"]
    for name, arm in arms.items():
        makes = ARMS[name].labels != "truth" and not ARMS[name].stored
        assert (arm["seconds_per_epoch"]["labels"] > 0, arm["flops_per_epoch"]["labels"] > 0) == (makes, makes)


def test_only_the_archives_labels_need_the_public_base_model(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    assert {name for name, arm in archive["arms"].items() if arm["needs_base"]} == {"hello", "random-hello"}
    assert (archive["base"]["name"], archive["base"]["bytes"] > 1_000_000) == ("hello-convnet", True)


def test_scores_are_differences_of_the_arms(read: dict[str, Any]) -> None:
    (archive,) = read["archives"]
    pairs = {
        "hlr": ("full", "hard"),
        "ior_hello": ("hello", "random-hello"),
        "ior_teacher": ("teacher", "random-teacher"),
    }
    for score, (first, second) in pairs.items():
        a, b = (archive["arms"][name]["accuracy"]["last"]["mean"] for name in (first, second))
        assert archive["scores"][score]["mean"] == pytest.approx(a - b, abs=2e-6)


def arm(*values: float) -> dict[str, Any]:
    return {"accuracy": {"last": report.spread(values)}}


def test_scores_pair_the_seeds() -> None:
    arms = {"full": arm(0.8, 0.6), "hard": arm(0.5, 0.4), "hello": arm(0.5, 0.5), "random-hello": arm(0.7, 0.3)}
    found = report.scores(arms)
    assert found["hlr"] == {"mean": 0.25, "std": pytest.approx(stdev([0.3, 0.2]), abs=1e-6)}
    assert found["ior_hello"] == {"mean": 0.0, "std": pytest.approx(stdev([-0.2, 0.2]), abs=1e-6)}
    assert found["ior_teacher"] is None


def test_one_seed_has_no_spread() -> None:
    assert report.spread([0.5]) == {"mean": 0.5, "std": None, "values": [0.5]}


def test_report_is_plain_json(whole: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((whole / "report.json").read_text(), parse_constant=refuse)


def test_page_is_written_beside_it(whole: Path) -> None:
    assert (whole / "report.html").read_text() == "<p>1 archives"


def test_text_is_written_beside_it_with_the_card_of_the_archive(
    whole: Path, read: dict[str, Any], digits_archive: Path
) -> None:
    with Archive.open(digits_archive) as archive:
        card = archive.read("card").decode()
    text = (whole / "report.md").read_text()
    assert text == markdown(read, [card])
    assert text.startswith(card.strip())


def test_without_matplotlib_the_numbers_are_written_and_a_note_says_what_lacks(
    whole: Path, read: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "hellods.display.page", None)
    (tmp_path / "report.html").write_text("of another report")
    evaluate.write(read, [""], tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "report.md"]
    assert 'pip install "hellods[report]"' in caplog.text
