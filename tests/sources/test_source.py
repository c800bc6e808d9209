"""Sources yield the images that are there, say what they changed, and refuse by name what cannot be used."""

import logging
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hellods.errors import SourceError
from hellods.progress import Progress
from hellods.sources import source as sources
from hellods.sources.sampling import sample
from hellods.sources.source import Folder, Pixels, Source, open_source, squares, threaded, usual_side


def paint(file: Path, shade: int = 0, size: tuple[int, int] = (6, 4)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 255 - shade)).save(file)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of ten images each, no splits."""
    for label in ("cat", "dog"):
        for number in range(10):
            paint(tmp_path / "pets" / label / f"{number}.png", shade=number)
    return tmp_path / "pets"


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for part, count in (("train", 3), ("val", 2)):
        for label in ("cat", "dog"):
            for number in range(count):
                paint(tmp_path / "split" / part / label / f"{number}.png", shade=number)
    return tmp_path / "split"


def test_split_set_learns_from_train_and_holds_out_val(split: Path) -> None:
    train, held_out = open_source(str(split))
    assert (len(train), len(held_out), train.classes, held_out.classes) == (6, 4, ("cat", "dog"), ("cat", "dog"))
    assert train.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_test_is_held_out_where_there_is_no_val(split: Path) -> None:
    (split / "val").rename(split / "test")
    assert len(open_source(str(split))[1]) == 4


def test_unused_folders_are_said(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(split / "val", split / "test")
    with caplog.at_level(logging.INFO):
        open_source(str(split))
    assert caplog.messages == [f"{split}: of its folders these are not used: test"]


def test_train_alone_is_split_and_that_is_said(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(split / "val")
    with caplog.at_level(logging.INFO):
        train, held_out = open_source(str(split))
    assert (len(train), len(held_out)) == (4, 2)
    assert caplog.messages == [f"{split}: no val/ or test/, so a part of train/ is held out"]


def test_classes_of_one_image_are_named(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in "abcd":
        paint(pets / label / "0.png")
    open_source(str(pets))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert (
        f"{pets}: no accuracy counts the classes of one image, which is not held out: a, b, c and 1 more" in caplog.text
    )


def test_class_called_train_is_a_class(pets: Path) -> None:
    (pets / "cat").rename(pets / "train")
    assert open_source(str(pets))[0].classes == ("dog", "train")


def test_splits_of_different_classes_name_the_difference(split: Path) -> None:
    (split / "val" / "dog").rename(split / "val" / "hound")
    with pytest.raises(SourceError, match=r"val: lacks dog of .*train; both need the same class folders"):
        open_source(str(split))


def test_class_that_only_val_has_is_named(split: Path) -> None:
    paint(split / "val" / "fox" / "0.png")
    with pytest.raises(SourceError, match=r"train: lacks fox of .*val"):
        open_source(str(split))


def test_class_folders_alone_are_split_without_overlap_or_loss(pets: Path) -> None:
    train, held_out = open_source(str(pets), seed=3)
    files = [source.files for source in (train, held_out)]  # type: ignore[attr-defined]
    assert sorted(files[0] + files[1]) == sorted(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(10))
    assert torch.bincount(held_out.targets).tolist() == [2, 2]


def test_one_image_per_class_leaves_none_to_hold_out(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        paint(tmp_path / label / "0.png")
    with pytest.raises(SourceError, match="one image per class leaves none to measure on"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("found", ["no such folder", "not a folder"])
def test_what_is_no_folder_is_refused(tmp_path: Path, found: str) -> None:
    if found == "not a folder":
        (tmp_path / "x").touch()
    with pytest.raises(SourceError, match=f"x: {found}; give a folder"):
        open_source(str(tmp_path / "x"))


def test_unreadable_folder_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SourceError, match=r"pets: Permission denied; make this folder readable"):
        open_source(str(pets))


def test_file_that_went_away_is_named(pets: Path) -> None:
    train, _ = open_source(str(pets))
    shutil.rmtree(pets)
    with pytest.raises(SourceError, match=r"\.png: No such file or directory; make this file readable"):
        train.image(0)


def test_check_names_every_bad_file_in_one_line(split: Path) -> None:
    (split / "train" / "cat" / "1.png").write_bytes(b"")
    (split / "train" / "dog" / "0.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"cat/1\.png: empty file.*; so with 1 more: .*dog/0\.png$") as raised:
        open_source(str(split))[0].check()
    assert "\n" not in str(raised.value)


def test_check_that_decodes_nothing_names_every_file_that_cannot_be_read_and_knows_the_others(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, hashed = open_source(str(split))[0], open_source(str(split))[0]
    whole.check()
    with monkeypatch.context() as patch:
        patch.delattr(sources, "decode")
        hashed.check(decode=False)
    assert hashed.provenance() == whole.provenance()
    for file in ("cat/1.png", "dog/0.png"):
        (split / "train" / file).unlink()
    with pytest.raises(SourceError, match=r"cat/1\.png: No such file.*; so with 1 more: .*dog/0\.png$"):
        hashed.check(decode=False)


def test_check_says_once_what_was_converted(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        Image.new("L", (4, 4)).save(split / "train" / "cat" / f"{number}.png")
    with caplog.at_level(logging.INFO):
        open_source(str(split))[0].check()
    assert caplog.messages == ["split: converted to 8-bit RGB: 2 grayscale"]


def test_check_reports_every_image(split: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    progress: Progress = lambda *call: calls.append(call)  # noqa: E731
    open_source(str(split))[0].check(progress)
    assert calls == [("Data", done, 6) for done in range(7)]


def test_image_comes_in_its_own_size(pets: Path) -> None:
    train, _ = open_source(str(pets))
    image = train.image(0)
    assert (image.dtype, image.shape) == (torch.uint8, (3, 4, 6))


def test_provenance_counts_images_and_bytes(split: Path) -> None:
    facts = open_source(str(split))[0].provenance()
    size = sum(file.stat().st_size for file in (split / "train").rglob("*.png"))
    assert (facts["name"], facts["images"], facts["bytes"], len(facts["sha256"])) == ("split", 6, size, 64)


def rename(folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "cat" / "9.png")


def repaint(folder: Path) -> None:
    paint(folder / "train" / "cat" / "0.png", shade=77)


@pytest.mark.parametrize("change", [rename, repaint])
def test_digest_covers_names_and_bytes(split: Path, change: Callable[[Path], None]) -> None:
    before = open_source(str(split))[0].provenance()["sha256"]
    change(split)
    assert open_source(str(split))[0].provenance()["sha256"] != before


def test_digest_is_the_same_wherever_the_folder_lies(split: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(split, tmp_path / "elsewhere" / "split")
    assert open_source(str(moved))[0].provenance() == open_source(str(split))[0].provenance()


def test_square_is_the_center(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 2:6] = 200
    for label in ("cat", "dog"):
        for number in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    images = squares(open_source(str(tmp_path))[0], torch.tensor([1, 0, 1]), 2)
    assert torch.equal(images, torch.full((3, 3, 2, 2), 200, dtype=torch.uint8))


@pytest.mark.parametrize("kept", [0, 1 << 20], ids=["decoded anew", "kept"])
def test_squares_come_in_the_order_asked_for(pets: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(sources, "KEPT", kept)
    train, _ = open_source(str(pets))
    indices = torch.tensor([5, 0, 5, 11])
    for side in (4, 4, 2):
        assert squares(train, indices, side)[:, 0, 0, 0].tolist() == [
            int(train.image(int(i))[0, 0, 0]) for i in indices
        ]


def test_squares_are_decoded_once_while_they_fit(pets: Path) -> None:
    train, _ = open_source(str(pets))
    first = squares(train, torch.arange(len(train)), 4)
    shutil.rmtree(pets)
    assert torch.equal(squares(train, torch.arange(len(train)), 4), first)


def test_few_images_are_decoded_ahead_of_who_takes_them() -> None:
    begun: list[int] = []

    def decode(number: int) -> int:
        begun.append(number)
        return number

    made = threaded(decode, range(1000))
    assert next(made) == 0
    time.sleep(0.1)
    assert len(begun) <= 2 * 8 + 1
    assert list(made) == list(range(1, 1000))


def test_extreme_shape_costs_no_memory(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(2):
            paint(tmp_path / label / f"{number}.png", size=(50_000, 1))
    assert squares(open_source(str(tmp_path))[0], torch.arange(1), 32).shape == (1, 3, 32, 32)


def test_sample_is_even_over_classes_and_has_no_image_twice(pets: Path) -> None:
    for number in range(4):
        (pets / "dog" / f"{number}.png").unlink()
    train, _ = open_source(str(pets))
    chosen = sample(train, 6)
    assert torch.bincount(train.targets[chosen]).tolist() == [6, 5]
    assert len(chosen.unique()) == 11


@pytest.fixture(scope="module")
def digits() -> tuple[Source, Source]:
    pytest.importorskip("sklearn")
    return open_source("digits")


def test_digits_are_all_there(digits: tuple[Source, Source]) -> None:
    train, held_out = digits
    assert len(train) + len(held_out) == 1797
    assert train.classes == tuple("0123456789")
    assert (train.image(0).dtype, train.image(0).shape) == (torch.uint8, (3, 32, 32))


def test_digits_halves_share_no_image(digits: tuple[Source, Source]) -> None:
    first, second = ({source.image(i).numpy().tobytes() for i in range(len(source))} for source in digits)
    assert not first & second


def test_digits_provenance_tells_the_halves_apart(digits: tuple[Source, Source]) -> None:
    first, second = (source.provenance() for source in digits)
    assert (first["images"], first["bytes"]) == (len(digits[0]), 64 * len(digits[0]))  # of 8 × 8 pixels
    assert first["sha256"] != second["sha256"]


def test_folder_called_digits_wins_and_that_is_said(
    pets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(pets.rename(pets.parent / "digits").parent)
    with caplog.at_level(logging.INFO):
        assert open_source("digits")[0].classes == ("cat", "dog")
    assert caplog.messages == ["digits: the folder of this name is used, not scikit-learn's set"]


def test_missing_scikit_learn_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SourceError, match=r'pip install "hellods\[demo\]"'):
        open_source("digits")


def test_real_folder_is_read_whole(cifar10: Path) -> None:
    train, held_out = open_source(str(cifar10))
    assert (len(train), len(held_out)) == (20_000, 10_000)
    assert torch.bincount(train.targets).tolist() == [2000] * 10
    mean = squares(held_out, torch.arange(10_000), 32).double().mean() / 255
    assert mean == pytest.approx((0.4942 + 0.4851 + 0.4504) / 3, abs=1e-4)  # the published mean of the test images


def test_usual_side_is_the_median_of_what_can_be_used(pets: Path) -> None:
    for number in range(10):
        paint(pets / "cat" / f"{number}.png", size=(9, 5 + number))  # shorter sides 5 to 9; dogs have 4
    for broken in (pets / "cat" / "0.png", pets / "cat" / "1.png", *(pets / "dog").glob("[2-9].png")):
        broken.write_bytes(b"none")
    files = [f"{label}/{number}.png" for label in ("cat", "dog") for number in range(10)]
    assert usual_side(Folder("pets", pets, ("cat", "dog"), files)) == 9


def test_usual_side_of_a_large_set_is_that_of_a_few_images_all_over_it() -> None:
    looked_at = []

    class Growing(Pixels):
        def image(self, index: int) -> torch.Tensor:
            looked_at.append(index)
            return torch.zeros(3, 10 + index // 1000, 2000)

    source = Growing("growing", ("a", "b"), [0, 1] * 50_000, torch.zeros(0))
    assert usual_side(source) == usual_side(source) == 10 + 49
    assert sorted(looked_at[:100]) == list(range(0, 100_000, 1000))


def test_usual_side_of_images_none_of_which_can_be_used_names_one(pets: Path) -> None:
    (pets / "cat" / "0.png").write_bytes(b"none")
    with pytest.raises(SourceError, match=r"0\.png: not an image"):
        usual_side(Folder("pets", pets, ("cat", "dog"), ["cat/0.png"]))


def test_splits_without_class_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / split / "1.png")
    with pytest.raises(SourceError, match=r"train: holds no class folders; give each class a folder of its images"):
        open_source(str(tmp_path))
