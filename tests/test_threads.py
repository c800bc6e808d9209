"""Work that is shared out is done once, in a process of its own too."""

from collections.abc import Iterator
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.queues import SimpleQueue

import pytest
import torch

from hellods.threads import in_threads


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_work_in_threads_is_done_once(threads: int, count: int) -> None:
    torch.set_num_threads(threads)
    done: list[int] = []
    in_threads(done.extend, count)
    assert sorted(done) == list(range(count))


@pytest.mark.usefixtures("_threads")
def test_fault_in_a_thread_is_raised() -> None:
    torch.set_num_threads(2)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda part: print(1 / part.start), 4)  # the first begins at 0


def _in_a_child(answers: "SimpleQueue[list[int]]") -> None:
    done: list[int] = []
    in_threads(done.extend, 7)
    answers.put(sorted(done))


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="this system cannot fork")
@pytest.mark.usefixtures("_threads")
def test_forked_process_has_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    in_threads(lambda part: None, 7)
    context = get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_in_a_child, args=(answers,))
    child.start()
    child.join(30)
    child.kill()
    assert child.exitcode == 0
    assert answers.get() == list(range(7))
