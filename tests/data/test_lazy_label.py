import copy
import io
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div
from torch.utils.data import default_collate
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms.v2 import CutMix

from hellods.data.lazy_label import LABELERS, LazyLabel
from hellods.errors import LabelError


class Sines:
    """A labeler whose answers can be checked by hand; it counts the rows it was asked for."""

    def __init__(
        self, key: int = 7, classes: tuple[str, ...] = ("cat", "dog", "frog"), kind: str = "labels='soft'"
    ) -> None:
        self.id, self.classes, self.kind, self.rows = key, classes, kind, 0

    def label(self, epochs: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        self.rows += len(indices)
        phase = (100 * self.id + 10 * epochs + indices)[:, None] + torch.arange(len(self.classes))
        return torch.softmax(torch.sin(phase.to(device, torch.float32)), dim=1)


@pytest.fixture
def sines() -> Iterator[Sines]:
    labeler = Sines()
    LABELERS[labeler.id] = labeler
    yield labeler
    LABELERS.pop(labeler.id, None)


EPOCHS, INDICES = torch.tensor([0, 0, 1, 4]), torch.tensor([5, 2, 2, 9])


def batch(labeler: Sines) -> LazyLabel:
    return LazyLabel.of(torch.stack([torch.full((4,), labeler.id), EPOCHS, INDICES], 1), len(labeler.classes))


def truth(labeler: Sines) -> Tensor:
    return Sines(labeler.id, labeler.classes).label(EPOCHS, INDICES, torch.device("cpu"))


FACTS: dict[str, Any] = {
    "shape": lambda t: tuple(t.shape),
    "size": lambda t: (tuple(t.size()), t.size(1), t.size(-1)),
    "ndim": lambda t: (t.ndim, t.dim()),
    "len": len,
    "numel": lambda t: t.numel(),
    "dtype": lambda t: (t.dtype, t.is_floating_point(), torch.is_floating_point(t)),
    "complex": lambda t: (t.is_complex(), torch.is_complex(t)),
    "device": lambda t: (t.device, t.is_cpu, t.is_cuda, t.is_meta, t.is_mps),
    "layout": lambda t: (t.layout, t.is_contiguous(), t.stride(), t.stride(1)),
    "bytes": lambda t: (t.element_size(), t.itemsize, t.nbytes),
    "memory": lambda t: (t.is_pinned(), t.is_shared()),
    "gradient": lambda t: (t.requires_grad, t.grad, t.grad_fn, t.is_leaf),
    "row's shape": lambda t: tuple(t[0].shape),
    "slice's shape": lambda t: tuple(t[1:3].shape),
    "stack's shape": lambda t: tuple(torch.stack([t[0], t[3]]).shape),
}


@pytest.mark.parametrize("fact", FACTS)
def test_facts_are_those_of_the_values_and_cost_nothing(fact: str, sines: Sines) -> None:
    found = FACTS[fact](batch(sines))
    assert (found, sines.rows) == (FACTS[fact](truth(sines)), 0)


def test_facts_are_those_of_values_that_were_changed(sines: Sines) -> None:
    label = batch(sines)
    label.unsqueeze_(0).requires_grad_()
    (2 * label).sum().backward()
    assert (label.shape, label.stride(), len(label)) == ((1, 4, 3), (12, 3, 1), 1)
    assert label.requires_grad
    assert torch.equal(label.grad, torch.full((1, 4, 3), 2.0))


def test_repr_says_that_nothing_is_computed(sines: Sines) -> None:
    label = batch(sines)
    assert (f"{label}", sines.rows) == ("LazyLabel(shape=(4, 3), not computed)", 0)


def test_repr_shows_values_once_they_are_there(sines: Sines) -> None:
    label = batch(sines)
    label.to("cpu")
    assert repr(label) == repr(truth(sines))


def in_a_cycle(label: Tensor) -> Tensor:
    held: dict[str, Any] = {"label": label}
    held["self"] = held
    copied = copy.deepcopy(held)
    assert copied["self"] is copied
    return copied["label"]


OPERATIONS: dict[str, Any] = {
    "to device": lambda t: t.to("cpu"),
    "to device by keyword": lambda t: t.to(device=torch.device("cpu"), non_blocking=True),
    "to dtype": lambda t: t.to(torch.float64),
    "to like another": lambda t: t.to(torch.zeros(1)),
    "another to it": lambda t: torch.zeros(2, dtype=torch.int64).to(t),
    "argmax": lambda t: t.argmax(1),
    "arithmetic": lambda t: 0.5 * t + t.flip(0) / 2 - 1,
    "column": lambda t: t[:, 1],
    "mask": lambda t: t[torch.tensor([True, False, True, False])],
    "row of row": lambda t: t[2][1],
    "iteration": lambda t: list(t)[2],
    "cat": lambda t: torch.cat([t, t[1:]]),
    "stack on another dimension": lambda t: torch.stack([t, t], 1),
    "stack with a tensor": lambda t: torch.stack([t[0], torch.ones(3)]),
    "cross entropy": lambda t: cross_entropy(torch.eye(4, 3), t),
    "kl": lambda t: kl_div(torch.eye(4, 3).log_softmax(1), t, reduction="batchmean"),
    "numpy": lambda t: torch.from_numpy(t.numpy()),
    "list": lambda t: torch.tensor(t.tolist()),
    "clone": lambda t: t.clone(),
    "deepcopy": copy.deepcopy,
    "deepcopy in a cycle": in_a_cycle,
    "row of a row of a stack": lambda t: torch.stack([t, t])[1][2] + 0,
    "rows of a row of a stack": lambda t: torch.stack([t, t])[1][1:][1:] + 0,
    "copy": copy.copy,
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_see_the_values(name: str, sines: Sines) -> None:
    found = OPERATIONS[name](batch(sines))
    assert type(found) is Tensor
    assert torch.equal(found, OPERATIONS[name](truth(sines)))


def test_values_are_made_once_per_tensor(sines: Sines) -> None:
    label = batch(sines)
    label.to("cpu")
    _ = label + 1, label.argmax(1), label[2], label.to("cpu")
    assert sines.rows == 4


def summed(labels: Tensor) -> Tensor:
    return labels.size(-1) * (labels * labels.new_ones(3)).sum(1)


BENEATH: dict[str, Any] = {
    "Tensor": torch.Tensor,
    "Variable": torch.autograd.Variable,
    "as_subclass": lambda t: t.as_subclass(Tensor),
    "dlpack": lambda t: torch.utils.dlpack.from_dlpack(t),
    "tensor": torch.tensor,
    "as_tensor": lambda t: torch.as_tensor(t, dtype=torch.float64),
    "asarray": torch.asarray,
    "numpy": lambda t: torch.from_numpy(np.asarray(t)),
    "script": lambda t: torch.jit.script(summed)(t),
    "trace": lambda t: torch.jit.trace(lambda t: 2 * t.flip(0), torch.rand(4, 3))(t),
    "vmap": torch.func.vmap(lambda row: 2 * row),
    "gradient": lambda t: torch.func.grad(lambda values: values.square().sum())(t),
    "gradient for each": lambda t: torch.func.vmap(torch.func.grad(lambda x, row: (x * row).sum()))(t + 1, t),
    "nested": lambda t: torch.nested.nested_tensor([t, t]).to_padded_tensor(0.0),
    "no function of torch's": lambda t: _beneath(t),
}


def _beneath(label: Tensor) -> Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return label + 1


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor", "ignore:.*nested tensors", "ignore:.*torch.jit")
@pytest.mark.parametrize("name", BENEATH)
def test_what_torch_asks_nobody_about_sees_the_values(name: str, sines: Sines) -> None:
    for label in (batch(sines), batch(sines)[1:]):
        assert torch.equal(BENEATH[name](label), BENEATH[name](label.to("cpu")))
    assert isinstance(batch(sines), torch.FloatTensor)
    assert torch.equal(batch(sines).to("cpu"), truth(sines))


def test_change_in_place_stays(sines: Sines) -> None:
    label = batch(sines)
    label.mul_(2)
    label[0] = 0
    expected = truth(sines) * 2
    expected[0] = 0
    assert torch.equal(label.to("cpu"), expected)


WRITES: dict[str, Any] = {
    "row": lambda t: t[0].mul_(5),
    "row, with an operator": lambda t: t[-1].__imul__(5),
    "slice": lambda t: t[:2].zero_(),
    "row of a slice": lambda t: t[1:3][0].add_(1),
    "result": lambda t: torch.mul(torch.ones(3), 7, out=t[2]),
    "element": lambda t: t[1:].__setitem__((0, 2), 9),
}


@pytest.mark.parametrize("name", WRITES)
def test_change_in_place_of_a_row_or_a_slice_is_one_of_the_whole(name: str, sines: Sines) -> None:
    label, expected = batch(sines), truth(sines)
    WRITES[name](label)
    WRITES[name](expected)
    assert not torch.equal(expected, truth(sines))
    assert torch.equal(label.to("cpu"), expected)


def test_change_in_place_of_the_whole_is_one_of_its_rows(sines: Sines) -> None:
    label = batch(sines)
    row, part = label[1], label[2:]
    label.mul_(2)
    assert repr(part) == repr(2 * truth(sines)[2:])
    assert torch.equal(pickle.loads(bytes(ForkingPickler.dumps(part))), 2 * truth(sines)[2:])
    assert torch.equal(row.to("cpu"), 2 * truth(sines)[1])


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), 2], ids=str)
def test_values_first_needed_in_inference_mode_are_learned_from_after_it(part: Any, sines: Sines) -> None:
    labels = batch(sines)[part]
    with torch.inference_mode():
        assert labels.argmax(-1).tolist() == truth(sines)[part].argmax(-1).tolist()
    scale = torch.ones(3, requires_grad=True)
    (scale * labels).sum().backward()
    assert scale.grad is not None
    labels.mul_(2)
    assert torch.equal(labels.to("cpu"), 2 * truth(sines)[part])


def test_rows_are_made_with_the_whole_and_once(sines: Sines) -> None:
    label = batch(sines)
    found = torch.stack([label[row].to("cpu") for row in range(4)])
    assert torch.equal(found, label.to("cpu"))
    assert sines.rows == 4


def test_values_are_float32_under_autocast(sines: Sines) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(batch(sines).to("cpu"), truth(sines))


def test_saved_file_holds_values(sines: Sines) -> None:
    file = io.BytesIO()
    torch.save({"labels": batch(sines)}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["labels"]
    assert type(loaded) is Tensor
    assert torch.equal(loaded, truth(sines))


def test_collated_samples_stay_lazy(sines: Sines) -> None:
    rows = [batch(sines)[row] for row in range(4)]
    images, labels = default_collate([(torch.zeros(3), row) for row in rows])
    assert (type(labels), images.shape, sines.rows) == (LazyLabel, (4, 3), 0)
    assert torch.equal(labels.to("cpu"), truth(sines))


def test_pinning_a_batch_leaves_its_labels_lazy(sines: Sines) -> None:
    (label,) = pin_memory([batch(sines)], "cpu")
    assert (type(label), sines.rows) == (LazyLabel, 0)


def test_label_between_processes_is_a_few_bytes_of_handles(sines: Sines) -> None:
    data = bytes(ForkingPickler.dumps(batch(sines)))
    back = pickle.loads(data)
    assert (type(back), sines.rows, len(data) < 400) == (LazyLabel, 0, True)
    assert torch.equal(back.to("cpu"), truth(sines))


def test_label_keeps_its_labeler_alive(sines: Sines) -> None:
    labeler = Sines(key=8)
    LABELERS[8] = labeler
    label, expected = batch(labeler), truth(labeler)
    del labeler
    assert torch.equal(label.to("cpu"), expected)


def test_label_without_labeler_says_that_its_data_set_is_gone() -> None:
    label = batch(Sines(key=9))
    assert label.shape == (4, 3)
    with pytest.raises(LabelError, match="HelloDataset of these labels is gone"):
        label.to("cpu")


def test_labels_of_two_data_sets_mix_in_one_batch(sines: Sines) -> None:
    other = LABELERS[8] = Sines(key=8)
    mixed = torch.stack([batch(other)[0], batch(sines)[1], batch(other)[2]])
    expected = torch.stack([truth(other)[0], truth(sines)[1], truth(other)[2]])
    assert torch.equal(mixed.to("cpu"), expected)


def test_labels_of_two_data_sets_are_float32_whatever_the_default(sines: Sines) -> None:
    other = LABELERS[8] = Sines(key=8)
    mixed = torch.stack([batch(other)[0], batch(sines)[1]])
    torch.set_default_dtype(torch.float64)
    try:
        assert mixed.to("cpu").dtype == mixed.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_labels_of_another_kind_do_not_mix(sines: Sines) -> None:
    other = LABELERS[8] = Sines(key=8, kind="labels='logits'")
    mixed = torch.stack([batch(other)[0], batch(sines)[1]])
    with pytest.raises(LabelError, match="labels='logits' and labels='soft'"):
        mixed.to("cpu")


def test_device_without_values_takes_none_away(sines: Sines) -> None:
    label, row = batch(sines), batch(sines)[1]
    for _ in range(2):
        assert label.to("meta").is_meta
        assert row.to("meta").is_meta
        label.mul_(2)
    assert torch.equal(label.to("cpu"), 4 * truth(sines))
    assert torch.equal(row + 0, truth(sines)[1])


def test_labels_of_other_classes_do_not_mix(sines: Sines) -> None:
    other = LABELERS[8] = Sines(key=8, classes=("cat", "dog", "ship"))
    mixed = torch.stack([batch(other)[0], batch(sines)[1]])
    with pytest.raises(LabelError, match="classes differ"):
        mixed.to("cpu")


def test_labels_of_other_numbers_of_classes_do_not_stack(sines: Sines) -> None:
    other = LABELERS[8] = Sines(key=8, classes=("cat", "dog"))
    with pytest.raises(LabelError, match="2 and 3 classes"):
        torch.stack([batch(other)[0], batch(sines)[1]])


def test_torchvision_cutmix_mixes_the_values(sines: Sines) -> None:
    images = torch.rand(4, 3, 8, 8)
    torch.manual_seed(0)
    _, found = CutMix()(images, batch(sines))
    torch.manual_seed(0)
    _, expected = CutMix()(images, truth(sines))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["cross entropy", "arithmetic", "row's shape", "dtype"])
def test_compiled_function_refuses_a_label_that_is_not_made(name: str, sines: Sines) -> None:
    with pytest.raises(
        Exception,
        match=r"HelloError: torch\.compile does not look into lazy tensors: give it what \.to\(device\) returns",
    ):
        torch.compile((OPERATIONS | FACTS)[name], backend="eager")(batch(sines))


def test_compiled_function_takes_the_values(sines: Sines) -> None:
    compiled = torch.compile(OPERATIONS["arithmetic"], backend="eager", fullgraph=True)
    assert torch.equal(compiled(batch(sines).to("cpu")), OPERATIONS["arithmetic"](truth(sines)))


def test_values_are_made_on_the_device_asked_for(sines: Sines, accelerator: str) -> None:
    for values in (batch(sines).to(accelerator), batch(sines).pin_memory().to(accelerator, non_blocking=True)):
        assert values.device == torch.device(accelerator)
        assert torch.allclose(values.cpu(), truth(sines))


@pytest.mark.gpu
def test_values_are_made_on_a_gpu_by_its_own_method(sines: Sines) -> None:
    made = batch(sines).cuda(), batch(sines).cuda(0, True), batch(sines).pin_memory().cuda(0)
    for values in made:
        assert values.device.type == "cuda"
        assert torch.allclose(values.cpu(), truth(sines))


def test_part_of_a_part_of_a_part_is_a_view_of_the_whole(sines: Sines) -> None:
    whole = batch(sines)
    part = whole
    for _ in range(2000):
        part = part[0:]
    assert torch.equal(part[1:][::2][1], truth(sines)[3])
    assert part.shape == (4, 3)
    assert sines.rows == 4
    part.zero_()
    assert whole.sum() == 0


def test_stacking_in_a_worker_into_memory_of_others_needs_values(sines: Sines, monkeypatch: pytest.MonkeyPatch) -> None:
    label = batch(sines)
    rows, target = [label[0], label[1]], torch.zeros(2, 3)
    monkeypatch.setattr("hellods.data.lazy_label.get_worker_info", lambda: True)
    with pytest.raises(LabelError, match=r"^torch.stack needs label values, which a DataLoader worker does not make"):
        torch.stack(rows, out=target)
