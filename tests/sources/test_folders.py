"""Folders are read as torchvision reads them; what would be a surprise is refused or said."""

import logging
from pathlib import Path

import pytest

from hellods.errors import SourceError
from hellods.sources.folders import choose_held_out, scan, shorten


def touch(root: Path, *files: str) -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_classes_and_files_are_sorted_and_found_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "dog/b.png", "dog/a.JPEG", "cat/images/1.webp")
    assert scan(tmp_path) == (["cat", "dog"], ["cat/images/1.webp", "dog/a.JPEG", "dog/b.png"])


def test_linked_folders_are_read_but_for_one_that_leads_back(tmp_path: Path) -> None:
    root, more = touch(tmp_path / "root", "cat/1.png", "dog/1.png"), touch(tmp_path / "more", "2.png")
    (root / "cat" / "linked").symlink_to(more)
    (root / "cat" / "again").symlink_to(root)
    assert scan(root) == (["cat", "dog"], ["cat/1.png", "cat/linked/2.png", "dog/1.png"])


def test_a_folder_is_read_once_however_it_is_linked(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a/1.png", "cat/b/2.png", "dog/1.png")
    (tmp_path / "cat" / "a" / "b").symlink_to(tmp_path / "cat" / "b")
    (tmp_path / "cat" / "b" / "a").symlink_to(tmp_path / "cat" / "a")
    assert len(scan(tmp_path)[1]) == 3


def test_a_link_into_another_class_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/more/1.png")
    (tmp_path / "cat" / "others").symlink_to(tmp_path / "dog" / "more")
    with pytest.raises(SourceError, match=r"others: links into the class 'dog', .*; remove the link"):
        scan(tmp_path)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.png", "cat/.2.png", "cat/.thumbs/3.png", "dog/1.png", ".git/1.png", ".complete")
    with caplog.at_level(logging.INFO):
        assert scan(tmp_path) == (["cat", "dog"], ["cat/1.png", "dog/1.png"])
    assert not caplog.messages


def test_other_files_are_ignored_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "cat/1.png", "cat/notes.txt", "dog/1.png", "dog/labels.csv")
    with caplog.at_level(logging.INFO):
        scan(tmp_path)
    assert caplog.messages == [f"{tmp_path}: 2 other files beside the images are ignored"]


def test_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(SourceError, match="0 class folders, expected two or more"):
        scan(tmp_path)


def test_two_names_of_one_class_folder_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.png", "red/1.png")
    (tmp_path / "crimson").symlink_to(tmp_path / "red")
    with pytest.raises(SourceError, match=r"crimson: is the same folder as the class 'red'; remove one of them"):
        scan(tmp_path)


def test_class_without_images_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/readme.txt")
    with pytest.raises(SourceError, match=r"dog: no images; fill this folder, remove it, or name"):
        scan(tmp_path)


def test_splits_of_other_names_are_not_taken_for_classes(tmp_path: Path) -> None:
    touch(tmp_path, "training/cat/1.png", "training/dog/1.png", "validation/cat/1.png", "validation/dog/1.png")
    with pytest.raises(SourceError, match=r"training/, validation/ hold folders, not images; call .* train/ and val/"):
        scan(tmp_path)


def test_held_out_share_is_the_same_for_every_class() -> None:
    names = [f"{label}/{number}" for label in ("a", "b", "c") for number in range(50)]
    chosen = choose_held_out(names, seed=0, share=0.2)
    assert [sum(name.startswith(label) for name in chosen) for label in ("a", "b", "c")] == [10, 10, 10]


def test_held_out_is_a_function_of_seed_and_names_alone() -> None:
    names = [f"a/{number}" for number in range(100)]
    first = choose_held_out(names, seed=1, share=0.2)
    assert choose_held_out(reversed(names), seed=1, share=0.2) == first
    assert choose_held_out(names, seed=2, share=0.2) != first


@pytest.mark.parametrize(("images", "held"), [(1, 0), (2, 1), (3, 1), (10, 2)])
def test_small_class_keeps_an_image_to_learn_from(images: int, held: int) -> None:
    assert len(choose_held_out([f"a/{number}" for number in range(images)], seed=0, share=0.2)) == held


def test_list_in_a_message_is_short() -> None:
    assert [shorten(list("abc")), shorten(list("abcde"))] == ["a, b, c", "a, b, c and 2 more"]
