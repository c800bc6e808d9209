"""Threads over a batch: all of it once, each alone, and nothing of torch's settings changed."""

from collections.abc import Iterator
from threading import Thread, get_ident

import pytest
import torch

from hellods.views.threads import SHARE, spread


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
@pytest.mark.parametrize("values", [1, SHARE])
def test_slices_cover_the_batch_once(count: int, values: int) -> None:
    seen = torch.zeros(count)
    spread(lambda some: seen[some].add_(1), count, values)
    assert seen.tolist() == [1] * count


def test_each_thread_computes_alone() -> None:
    found: dict[int, int] = {}
    spread(lambda some: found.update({get_ident(): torch.get_num_threads()}), 9, SHARE)
    assert get_ident() not in found
    assert set(found.values()) == {1}


def test_little_work_stays_where_it_is() -> None:
    found: list[tuple[int, slice]] = []
    spread(lambda some: found.append((get_ident(), some)), 9, SHARE // 9)
    assert found == [(get_ident(), slice(0, 9))]


def test_threads_of_torch_are_as_many_as_before() -> None:
    spread(lambda some: None, 9, SHARE)
    found: list[int] = []
    other = Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), found) == (3, [3])


def test_error_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        spread(lambda some: 1 // 0, 9, SHARE)
    assert torch.get_num_threads() == 3
