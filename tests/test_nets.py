"""Networks have the published shapes and sizes, for any side, and drawing their weights touches nothing global."""

import pytest
import torch
import torchvision
from torch import nn

from hellods.errors import OptionError
from hellods.nets import convnet, create, logits_shape


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_convnet3_has_the_published_number_of_parameters() -> None:
    assert parameters(create("convnet3", 10, 32)) == 320_010  # Zhao et al. 2021, ConvNet on CIFAR-10


@pytest.mark.parametrize(("depth", "side", "classes"), [(3, 28, 10), (4, 64, 200), (5, 128, 10), (6, 224, 7)])
def test_convnet_size_follows_the_formula(depth: int, side: int, classes: int) -> None:
    convolutions = (3 * 9 + 1) * 128 + (depth - 1) * (128 * 9 + 1) * 128
    head = (128 * (side // 2**depth) ** 2 + 1) * classes
    assert parameters(create(f"convnet{depth}", classes, side)) == convolutions + depth * 2 * 128 + head


def test_convnet_block_is_convolution_norm_relu_average_pool() -> None:
    kinds = [type(layer) for layer in convnet(3, 10, 32)]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d] * 3 + [nn.Flatten, nn.Linear]


def test_side_too_small_for_convnet_says_which_would_do() -> None:
    with pytest.raises(OptionError, match=r"convnet5 .* 16 px is too small, use 32 or more"):
        create("convnet5", 10, 16)


def test_small_resnet18_has_the_published_number_of_parameters() -> None:
    assert parameters(create("resnet18", 10, 32)) == 11_173_962


def test_small_resnet18_differs_from_torchvision_in_its_stem_alone() -> None:
    ours, theirs = create("resnet18", 10, 64).eval(), torchvision.models.resnet18(num_classes=10).eval()
    theirs.conv1, theirs.maxpool = ours.conv1, nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(images), theirs(images))


def test_small_resnet18_keeps_the_side_up_to_its_first_stage() -> None:
    network = create("resnet18", 10, 32)
    stem = nn.Sequential(network.get_submodule("conv1"), network.get_submodule("maxpool"))
    assert stem(torch.zeros(1, 3, 32, 32)).shape == (1, 64, 32, 32)


def test_large_resnet18_is_torchvisions() -> None:
    ours = create("resnet18", 10, 65, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = torchvision.models.resnet18(num_classes=10)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "test_resnet"])  # torchvision's, timm's
def test_other_names_come_from_torchvision_and_timm(name: str) -> None:
    assert logits_shape(create(name, 7, 64), 64) == (1, 7)


def test_unknown_name_suggests_those_that_are_close() -> None:
    with pytest.raises(OptionError, match=r"'resnet81' is unknown.*resnet18"):
        create("resnet81", 10, 32)


def test_network_of_another_side_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot take images of 32 px"):
        create("vit_tiny_patch16_224", 10, 32)


def test_weights_are_a_function_of_the_seed() -> None:
    first, same, other = (create("convnet3", 10, 8, seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_weights_are_float32_on_the_cpu_whatever_the_defaults() -> None:
    expected = create("convnet3", 10, 32).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            made = create("convnet3", 10, 32).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in made.items():
        assert (value.device.type, value.dtype) == ("cpu", expected[name].dtype)
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    create("convnet3", 10, 8, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_asking_for_the_shape_leaves_the_network_as_it_was() -> None:
    network = convnet(3, 10, 8).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logits_shape(network, 8)
    assert [module.training for module in network] == [index != 1 for index in range(len(network))]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
