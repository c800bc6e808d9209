"""The teacher labels as its network does, and one that cannot teach this data is refused before any work."""

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hellods.errors import OptionError, SourceError
from hellods.evaluate.makers import ship
from hellods.nets import channels_last
from hellods.sources.source import Pixels, open_source, squares
from hellods.teachers.scale import MEAN, STD
from hellods.teachers.teacher import Teacher, check_teacher, load_teacher, near_chance
from hellods.teachers.training import train_teacher

from .shades import CLASSES, Shade, shades, teacher, training


class Brighter(nn.Module):
    """Two classes: dark and bright."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], dim=1)


def test_logits_are_the_networks_on_normalized_images() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    images = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    expected = network((images / 255 - mean) / std)
    assert torch.allclose(teacher(network, mean=MEAN, std=STD)(images), expected, atol=1e-6)


def test_images_are_resized_to_the_side_of_the_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 10))
    assert teacher(network, side=6)(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).shape == (2, 10)


def test_teacher_stays_in_eval_mode_and_learns_nothing() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.Dropout())
    fixed = teacher(network).train()
    logits = fixed(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    assert not any(module.training for module in fixed.modules())
    assert not logits.requires_grad


@pytest.mark.parametrize(("mean", "std"), [((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), ((0, 0, 0), (1, 1, torch.nan))])
def test_mean_and_deviation_that_cannot_be_are_refused(mean: tuple[float], std: tuple[float]) -> None:
    with pytest.raises(OptionError, match=r"give three numbers each, mean up to 1e\+06, std from 1e-06"):
        teacher(mean=mean, std=std)


def test_provenance_changes_with_the_weights_alone() -> None:
    linear = nn.Linear(12, 10)
    network = nn.Sequential(nn.Flatten(), linear)
    before, again = teacher(network).provenance(), teacher(network).provenance()
    with torch.no_grad():
        linear.bias[3] += 1
    assert before == again
    assert teacher(network).provenance()["sha256"] != before["sha256"]


def test_provenance_has_numbers_as_decimal_strings() -> None:
    facts = teacher(mean=MEAN, std=STD).provenance()
    assert facts["mean"] == ["0.485", "0.456", "0.406"]


def test_accuracy_is_that_of_the_images() -> None:
    assert check_teacher(teacher(), shades(50, wrong=0.2), 4) == pytest.approx(0.8)


def test_two_swapped_classes_are_refused_and_named() -> None:
    order = torch.arange(10)
    order[[2, 5]] = order[[5, 2]]
    message = (
        "shades: teacher and data have their classes in different orders: 'c' is called 'f', 'f' is called 'c'; .*"
        "put its outputs in the order of the class folders, or give `allow_weak_teacher=True`"
    )
    with pytest.raises(SourceError, match=message):
        check_teacher(teacher(Shade(order)), shades(50, wrong=0.2), 4)


@pytest.mark.parametrize(
    ("trained", "advice"), [(False, "check its weights"), (True, "build with later `teacher_stages`")]
)
def test_teacher_near_chance_is_refused(trained: bool, advice: str) -> None:
    guesses = teacher(Shade(torch.zeros(10, dtype=torch.int64)), trained=trained)
    message = rf"shades: the teacher is right on 10\.0% of 500 images, near chance \(10\.0%\); {advice}"
    with pytest.raises(SourceError, match=message):
        check_teacher(guesses, shades(50), 4)


def test_accuracy_is_of_all_images_where_one_class_is_far_larger() -> None:
    targets = torch.tensor([0] * 3000 + [1] * 100)
    source = Pixels("uneven", ("dark", "bright"), targets.tolist(), torch.zeros(3100, 3, 4, 4, dtype=torch.uint8))
    source.images[3000:] = 255
    source.images[:1500] = 255  # half of the dark ones pass for bright
    found = check_teacher(Teacher(Brighter(), architecture="brighter"), source, 4, allow_weak=True)
    assert found == pytest.approx(1600 / 3100, abs=0.01)  # the mean of both classes is 0.75


@pytest.mark.parametrize(
    ("score", "images", "words"),
    [
        (0.905, 400, "near chance (90.0%); advice"),
        (0.95, 10, "too few to tell that from chance (90.0%)"),
        (0.95, 400, None),
    ],
)
def test_chance_is_to_name_the_largest_class(score: float, images: int, words: str | None) -> None:
    source = Pixels("uneven", ("a", "b"), [0] * 9 + [1], torch.zeros(10, 3, 4, 4, dtype=torch.uint8))
    fault = near_chance("teacher", score, images, source, "advice")
    assert (fault is None) == (words is None)
    assert words is None or words in (fault or "")


def test_faultless_teacher_passes_on_a_handful_of_images() -> None:
    few = Pixels("few", ("a", "b"), [0, 1], torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    few.images[1] = 255
    assert check_teacher(Teacher(Brighter(), architecture="brighter"), few, 4) == 1


def test_weak_teacher_passes_with_a_warning_when_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        score = check_teacher(teacher(Shade(torch.arange(10).roll(1))), shades(50), 4, allow_weak=True)
    assert score == 0
    assert caplog.messages[0].startswith("shades: teacher and data have their classes in different orders")


def test_more_images_find_what_few_cannot_and_do_not_count() -> None:
    order = torch.arange(10)
    order[[2, 5]] = order[[5, 2]]
    swapped = teacher(Shade(order))
    assert check_teacher(swapped, shades(3), 4) == pytest.approx(0.8)
    with pytest.raises(SourceError, match="different orders"):
        check_teacher(swapped, shades(3), 4, more=shades(50))


def test_measuring_reports_every_batch() -> None:
    calls: list[tuple[str, int, int]] = []
    check_teacher(teacher(), shades(50), 4, progress=lambda *call: calls.append(call))
    assert calls == [("Teacher check", done, 5) for done in range(6)]


FILE = """
from torch import nn

def ten():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 10))

def two():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))

def maps():
    return nn.Conv2d(3, 10, 1)

class Scripted(nn.Sequential):  # as a ScriptModule of torch.jit
    def requires_grad_(self, wanted=True):
        raise RuntimeError("requires_grad_ is not supported")

def scripted():
    return Scripted(nn.Flatten(), nn.Linear(48, 10))

class Odd(nn.Module):
    def get_extra_state(self):
        return {"version": 1}
    def set_extra_state(self, state):
        pass
    def forward(self, images):
        return images

def stateful():
    return nn.Sequential(Odd(), ten())

def packed():
    import torch
    net = ten()
    net.register_buffer("scale", torch.ones(1))
    net.state_dict = lambda *args, **kwargs: {"1.packed": (1, 2)}
    return net
"""


@pytest.mark.parametrize(
    ("function", "side", "message"),
    [
        ("two", 4, r"nets\.py:two: a teacher of 2 classes, the data has 10; give another teacher"),
        ("maps", 4, r"nets\.py:maps: returns \(1, 10, 4, 4\) for one image, expected logits \(1, K\)"),
        ("scripted", 4, r"nets\.py:scripted: cannot be used as it is: .*; return the plain network"),
        ("packed", 4, r"nets\.py:packed: its state_dict has 1\.packed, no tensor; give the network before quantiz"),
        ("ten", 5, r"nets\.py:ten: cannot take images of 5 px: .*; give another teacher, or build with another `side`"),
    ],
)
def test_network_that_does_not_fit_the_data_is_refused(tmp_path: Path, function: str, side: int, message: str) -> None:
    (tmp_path / "nets.py").write_text(FILE)
    with pytest.raises(SourceError, match=message):
        load_teacher(f"{tmp_path / 'nets.py'}:{function}", None, MEAN, STD, CLASSES, side)


def test_network_with_a_state_beside_tensors_is_taken(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FILE)
    spec = f"{tmp_path / 'nets.py'}:stateful"
    found = load_teacher(spec, None, MEAN, STD, CLASSES, 4)
    assert len(found.provenance()["sha256"]) == 64
    weights = {name: value + 1 for name, value in found.network.state_dict().items() if isinstance(value, Tensor)}
    torch.save(weights, tmp_path / "w.pt")
    loaded = load_teacher(spec, str(tmp_path / "w.pt"), MEAN, STD, CLASSES, 4)
    assert loaded.provenance()["sha256"] != found.provenance()["sha256"]
    _, size = ship(loaded, 4)
    assert size > 0


def test_network_that_is_right_far_more_often_than_a_guess_of_many_classes_is_taken() -> None:
    source = Pixels("many", [str(label) for label in range(200)], [*range(200)] * 50, torch.zeros(10_000, 3, 1, 1))
    assert near_chance("teacher", 0.08, 10_000, source, "advice") is None
    assert "near chance (0.5%)" in (near_chance("teacher", 0.014, 10_000, source, "advice") or "")


def test_torchvisions_own_resnet18_is_taken_for_small_images(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(num_classes=len(CLASSES)).state_dict(), tmp_path / "w.pt")
    found = load_teacher("resnet18", str(tmp_path / "w.pt"), MEAN, STD, CLASSES, 32)
    assert found(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, len(CLASSES))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_logits_that_are_no_numbers_are_refused_as_such(value: float) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 10), value)

    source = shades(2)
    broken = Teacher(Broken(), architecture="broken")
    with pytest.raises(SourceError, match="Teacher check: not all of its logits are finite; check its weights"):
        check_teacher(broken, source, 8, allow_weak=True)


def test_mean_of_published_weights_is_their_own() -> None:
    with pytest.raises(OptionError, match=r"resnet18: published weights bring the mean and std .*: leave yours out"):
        load_teacher("resnet18", None, (0.5, 0.5, 0.5), STD, CLASSES, 8)


def test_named_network_takes_the_weights_of_a_file(tmp_path: Path) -> None:
    trained = train_teacher(training(1), shades(2))
    torch.save(trained.network.state_dict(), tmp_path / "w.pt")
    loaded = load_teacher("convnet3", str(tmp_path / "w.pt"), MEAN, STD, CLASSES, 8)
    assert loaded.provenance() == trained.provenance()


def resnet20(shared: Path) -> Teacher:
    folder = shared / "data" / "teachers"
    spec = f"{folder / 'cifar_resnet.py'}:cifar10_resnet20"
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    return load_teacher(spec, str(folder / "cifar10_resnet20.safetensors"), MEAN, STD, classes, 32)


def test_real_teacher_reaches_its_published_accuracy(shared: Path, cifar10: Path) -> None:
    held_out = open_source(str(cifar10))[1]
    # 91.73 % on all 10,000 test images; three deviations of 2,000 are 1.9 points.
    assert check_teacher(resnet20(shared), held_out, 32) == pytest.approx(0.9173, abs=0.019)


def test_real_teacher_on_folders_in_another_order_is_refused(shared: Path, cifar10: Path, tmp_path: Path) -> None:
    names = {"cat": "kitten", "dog": "hound", "truck": "lorry", "automobile": "car"}
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for folder in (cifar10 / part).iterdir():
            (tmp_path / part / names.get(folder.name, folder.name)).symlink_to(folder)
    held_out = open_source(str(tmp_path))[1]
    with pytest.raises(SourceError, match="'deer' is called 'frog', 'frog' is called 'hound'"):
        check_teacher(resnet20(shared), held_out, 32)


def test_squares_of_the_source_are_what_the_teacher_is_shown() -> None:
    source, seen = shades(50), list[Tensor]()
    network = Shade()
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    check_teacher(teacher(network), source, 2)
    assert torch.allclose(torch.cat(seen) * 255, squares(source, torch.arange(500), 2).float())


# Networks that a layout, a precision or an ending sets apart.


class Viewing(nn.Module):
    """A ConvNet as many write it: what it flattens must lie in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.head(features.view(len(features), -1))


def test_network_that_takes_its_maps_in_one_piece_alone_is_left_so() -> None:
    network = channels_last(Viewing(), 4)
    assert network.body.weight.is_contiguous()
    assert network(torch.zeros(2, 3, 4, 4)).shape == (2, 10)
    assert not channels_last(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), 4)[0].weight.is_contiguous()


NETWORKS = """
from torch import nn

class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(16, 10)
    def forward(self, images):
        features = self.body(images)
        return self.head(features.view(len(features), -1))

def viewing():
    return Viewing()

def half():
    return nn.Sequential(nn.Conv2d(3, 4, 4).half(), nn.Flatten(), nn.Linear(4, 10))
"""


@pytest.mark.parametrize("function", ["viewing", "half"])
def test_network_of_a_user_labels_batches(function: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETWORKS)
    found = load_teacher(f"{tmp_path / 'nets.py'}:{function}", None, MEAN, STD, CLASSES, 4)
    assert found(torch.zeros(5, 3, 4, 4, dtype=torch.uint8)).shape == (5, 10)


def test_teacher_that_answers_with_probabilities_is_refused() -> None:
    source = shades(2)
    probable = Teacher(nn.Sequential(Shade(), nn.Softmax(1)), architecture="probable")
    with pytest.raises(SourceError, match=r"its answers are probabilities, .*; leave out its softmax"):
        check_teacher(probable, source, 8)
