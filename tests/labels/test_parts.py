"""Labels are made as many at once as suits the processor, and fewer where a GPU is full."""

import pytest
import torch
from torch import Tensor, nn

from hellods.labels.parts import in_parts


@pytest.mark.parametrize(("convolutions", "parts"), [(1, [20, 20]), (2, [6, 6, 6, 6, 6, 5, 5])])
def test_network_answers_in_equal_parts_but_under_autocast_which_casts_its_weights_for_each(
    convolutions: int, parts: list[int]
) -> None:
    seen: list[int] = []

    def answer(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images.mean((1, 2, 3))

    network = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(convolutions)))
    images = torch.zeros(40, 3, 224, 224)
    with torch.no_grad():
        whole = in_parts(answer, images, network)
        with torch.autocast("cpu", torch.bfloat16):
            in_parts(answer, images, network)
    assert (len(whole), seen) == (40, [*parts, 40])
    in_parts(answer, images, network)  # gradients are wanted
    assert seen[len(parts) + 1 :] == [40]


def test_network_answers_fewer_at_once_where_a_gpu_is_full() -> None:
    seen: list[int] = []

    def answer(images: Tensor) -> Tensor:
        seen.append(len(images))
        if len(images) > room:
            raise torch.OutOfMemoryError
        return images.mean((1, 2, 3))

    images, network, room = torch.rand(6, 3, 8, 8), nn.Conv2d(1, 1, 1), 2
    with torch.no_grad():
        assert torch.equal(in_parts(answer, images, network), images.mean((1, 2, 3)))
        assert seen == [6, 3, 2, 2, 1, 1]
        room = 0
        with pytest.raises(torch.OutOfMemoryError):
            in_parts(answer, images, network)
