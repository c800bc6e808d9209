"""A user's own network and weights are loaded as they are, or what does not fit is named."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from hellods.errors import SourceError
from hellods.teachers.weights import fit_weights, own_network, published, read_weights, side_of_stem

FILE = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Size:
    classes: "int" = 3

class Net(nn.Linear):
    pass

def good():
    return Net(4, Size().classes)

def needs(classes):
    return Net(4, classes)

def wrong():
    return 7

def doubled():
    import torch
    torch.set_default_dtype(torch.float64)
    return Net(4, 3)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    return path


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def test_function_of_a_file_gives_its_network(file: Path) -> None:
    assert type(own_network(f"{file}:good")[0]).__name__ == "Net"


def test_defaults_of_torch_that_a_file_changes_are_changed_back(file: Path) -> None:
    own_network(f"{file}:doubled")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(("kernel", "side", "expected"), [(7, 32, 65), (3, 128, 64), (7, 128, 65), (3, 32, 64)])
def test_stem_of_a_resnet18_is_that_of_its_weights(kernel: int, side: int, expected: int) -> None:
    stem = torch.zeros(64, 3, kernel, kernel)
    for prefix in ("", "module.", "module._orig_mod.", "_orig_mod.module."):
        assert side_of_stem("resnet18", {f"{prefix}conv1.weight": stem}, side) == expected
    assert side_of_stem("resnet50", {"conv1.weight": stem}, side) == side
    assert side_of_stem("resnet18", {"layer1.0.conv1.weight": stem}, side) == side


def test_running_a_file_leaves_nothing_behind(file: Path) -> None:
    modules, path = set(sys.modules), list(sys.path)
    own_network(f"{file}:good")
    assert (set(sys.modules), sys.path, list(file.parent.iterdir())) == (modules, path, [file])


def test_file_may_import_its_neighbors(file: Path) -> None:
    (file.parent / "hellods_test_neighbor.py").write_text("from torch import nn\nBlock = nn.Linear\n")
    file.write_text("from hellods_test_neighbor import Block\ndef good():\n    return Block(4, 3)\n")
    assert isinstance(own_network(f"{file}:good")[0], nn.Linear)
    assert str(file.parent) not in sys.path


def test_code_is_that_of_the_file_and_its_neighbors(file: Path) -> None:
    neighbor = file.parent / "hellods_test_neighbor.py"
    neighbor.write_text("from torch import nn\nBlock, SIZE = nn.Linear, 4\n")
    file.write_text("from hellods_test_neighbor import Block, SIZE\ndef good():\n    return Block(SIZE, 3)\n")
    first, again = own_network(f"{file}:good"), own_network(f"{file}:good")
    assert first[1] == again[1]
    neighbor.write_text("from torch import nn\nBlock, SIZE = nn.Linear, 15\n")
    network, code = own_network(f"{file}:good")
    assert code != first[1]
    assert network.in_features == 15  # and another teacher's neighbor of the same name is not taken for it


@pytest.mark.parametrize(
    "change",
    [
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "torch.set_grad_enabled(False)",
        "os.chdir(os.path.dirname(os.path.abspath(__file__)))",
    ],
)
def test_what_running_a_file_changes_is_put_back(change: str, file: Path) -> None:
    def state() -> tuple[object, ...]:
        return torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(), Path.cwd()

    before = state()
    file.write_text(f"import os, torch\n{change}\n" + FILE)
    own_network(f"{file}:good")
    assert state() == before


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("bad", r"nets\.py: no function 'bad'; it has Size, Net, good and 3 more"),
        ("needs", r"nets\.py:needs: TypeError: .*'classes'; it is called without arguments"),
        ("wrong", r"nets\.py:wrong: returns int, expected a torch\.nn\.Module"),
    ],
)
def test_function_that_will_not_do_is_refused(file: Path, function: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        own_network(f"{file}:{function}")


def test_error_in_a_function_is_told_with_its_line(file: Path) -> None:
    count = len(FILE.splitlines())
    file.write_text(FILE + "\ndef fails():\n    return undefined_name\n")
    with pytest.raises(SourceError, match=rf"nets\.py:fails: NameError: .*undefined_name.* \(line {count + 3}\)$"):
        own_network(f"{file}:fails")


def test_file_without_a_function_says_what_is_missing(file: Path) -> None:
    with pytest.raises(SourceError, match=r"nets\.py: names no function; give the teacher as FILE\.py:FUNCTION"):
        own_network(str(file))


@pytest.mark.parametrize("spec", ["absent.py:f", "absent.py"])
def test_missing_file_says_what_is_expected(spec: str) -> None:
    with pytest.raises(SourceError, match=r"absent\.py: no such file; give the teacher as FILE\.py:FUNCTION"):
        own_network(spec)


@pytest.mark.parametrize("text", ["import not_there", "def f(:", "raise SystemExit(2)"])
def test_file_that_fails_is_named_with_its_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SourceError, match=r"broken\.py: cannot be run: \w+: ") as raised:
        own_network(f"{tmp_path / 'broken.py'}:f")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_checkpoint_is_unwrapped(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    trained, fresh = network(), network()
    state = {prefix + key: value for key, value in trained.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    fit_weights(fresh, read_weights(str(tmp_path / "w.pt")), "w.pt", 3)
    assert same(fresh, trained)


def test_safetensors_are_read(tmp_path: Path) -> None:
    trained, fresh = network(), network()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    fit_weights(fresh, read_weights(str(tmp_path / "w.safetensors")), "w", 3)
    assert same(fresh, trained)


def test_own_prefix_is_kept() -> None:
    trained, fresh = (nn.ModuleDict({"module": nn.Linear(4, 3)}) for _ in range(2))
    fit_weights(fresh, trained.state_dict(), "w", 3)
    assert same(fresh, trained)


def test_counters_that_old_checkpoints_lack_are_filled_in() -> None:
    fit_weights(network(), without("1.num_batches_tracked"), "w", 3)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise AssertionError('code of a checkpoint was run')",))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", pickle.dumps(Harmful())], ids=["empty", "zip", "code"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_not_tensors_alone_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"w.{suffix}").write_bytes(content)
    with pytest.raises(SourceError, match="damaged, or not tensors alone, which could run code; save its state_dict"):
        read_weights(str(tmp_path / f"w.{suffix}"))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3}, {"state_dict": {"a": 1}}])
def test_checkpoint_without_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(SourceError, match=r"w\.pt: holds no state_dict"):
        read_weights(str(tmp_path / "w.pt"))


def test_missing_weights_are_named() -> None:
    with pytest.raises(SourceError, match=r"absent\.pt: no such file"):
        read_weights("absent.pt")


def test_weights_that_do_not_fit_name_the_first_keys_that_differ() -> None:
    weights = without("0.weight", "0.bias") | {"5.weight": torch.zeros(1), "1.weight": torch.zeros(7)}
    message = (
        r"w: does not fit the network: lacks 0\.weight, 0\.bias; has unexpected 5\.weight; "
        r"shape of 1\.weight is \(7,\), expected \(5,\); give"
    )
    with pytest.raises(SourceError, match=message):
        fit_weights(network(), weights, "w", 3)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def test_a_number_that_was_saved_as_a_vector_is_named() -> None:
    with pytest.raises(SourceError, match=r"w: does not fit the network: shape of scale is \(1,\), expected \(\)"):
        fit_weights(Scaled(), {"scale": torch.ones(1)}, "w", 3)


def test_counters_that_came_later_may_lack_beside_a_version_too() -> None:
    weights, fresh = network().state_dict(), network()
    del weights["1.num_batches_tracked"]
    assert weights._metadata["1"] == {"version": 2}
    fit_weights(fresh, weights, "w", 3)
    assert torch.equal(fresh[0].weight, weights["0.weight"])


def test_weights_of_another_number_of_classes_say_so() -> None:
    weights = network().state_dict() | {"2.weight": torch.zeros(9, 5), "2.bias": torch.zeros(9)}
    with pytest.raises(SourceError, match="w: weights of 9 classes, the data has 3"):
        fit_weights(network(), weights, "w", 3)


def test_published_weights_bring_their_own_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fake_download)
    _, facts = published("mobilenet_v3_small")
    assert facts == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "side": 224}


def test_published_weights_of_timm_bring_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def create(name: str, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        network = nn.Flatten()
        network.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "input_size": (3, 256, 192)}
        return network

    monkeypatch.setattr("timm.create_model", create)
    _, facts = published("mobilenetv3_small_100")
    assert asked == [("mobilenetv3_small_100", True)]
    assert facts == {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "side": 192}


def test_published_weights_that_cannot_be_fetched_say_what_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(
        SourceError, match="published weights cannot be had: OSError: no network; bring a file of `teacher_weights`"
    ):
        published("mobilenet_v3_small")


def test_name_without_published_weights_says_so() -> None:
    with pytest.raises(SourceError, match="convnet3: no weights are published under this name"):
        published("convnet3")


def fake_download(*_: object, **__: object) -> dict[str, Tensor]:
    return torchvision.models.mobilenet_v3_small().state_dict()


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in network().state_dict().items() if key not in keys}


def same(first: nn.Module, second: nn.Module) -> bool:
    state = second.state_dict()
    return all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module."])
def test_wrappers_of_wrappers_are_taken_off(prefix: str) -> None:
    trained, fresh = network(), network()
    fit_weights(fresh, {f"{prefix}{name}": value for name, value in trained.state_dict().items()}, "w", 3)
    assert torch.equal(fresh[0].weight, trained[0].weight)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": {"name": "resnet", "depth": 20}, "model_state_dict": state, "epoch": 3},
        lambda state: state | {"0._extra_state": {"amax": 1.0}},
        lambda state: {"net": {"state_dict": state}},
    ],
    ids=["beside a config", "with a state beside tensors", "in a wrapper of a wrapper"],
)
def test_weights_are_found_in_a_checkpoint(wrap: Callable[[dict[str, Tensor]], object], tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(wrap(dict(state)), tmp_path / "w.pt")
    assert read_weights(str(tmp_path / "w.pt")).keys() == state.keys()
