"""Arms are found by name or by kind, in the order of the table, and differ in one thing from their neighbors."""

import pytest

from hellods.errors import OptionError
from hellods.evaluate.arms import ARMS, choose


def test_every_arm_is_found_by_its_own_name() -> None:
    assert all(choose([name])[name] is ARMS[name] for name in ARMS)


def test_a_kind_means_all_of_it() -> None:
    assert list(choose(["random"])) == ["random-hello", "random-teacher"]
    assert list(choose(["stored", "shipped"])) == [
        "shipped-int8", "shipped-int4", "stored-1x", "stored-10x", "stored-100x",
    ]  # fmt: skip


def test_one_of_a_kind_does_not_bring_the_others() -> None:
    assert list(choose(["stored-10x"])) == ["stored-10x"]


def test_order_is_that_of_the_table_whatever_is_asked() -> None:
    assert list(choose(["full", "hello", "hard", "hello"])) == ["hello", "hard", "full"]


def test_all_kinds_are_all_arms() -> None:
    assert choose([name.partition("-")[0] for name in ARMS]) == ARMS


@pytest.mark.parametrize("name", ["", "int8", "rand", "stored-", "HELLO"])
def test_an_unknown_arm_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(OptionError, match=f"arm '{name}' is unknown: choose from hello, teacher, hard, "):
        choose(["hello", name])


def test_no_arm_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match="no arm is named: choose from hello, teacher, hard, "):
        choose([])


def test_competitors_see_the_archives_images_but_for_those_named_otherwise() -> None:
    others = {name for name, arm in ARMS.items() if arm.images != "archive"}
    assert others == {"random-hello", "random-teacher", "full"}


def test_arms_without_labels_learn_the_classes() -> None:
    assert {name for name, arm in ARMS.items() if arm.labels == "truth"} == {"hard", "full"}


def test_every_arm_says_what_it_is_in_words_of_its_own() -> None:
    assert len({arm.says for arm in ARMS.values()}) == len(ARMS)
