"""Networks and weights that exist already: of a user's own file, a checkpoint, or published."""

import hashlib
import os
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, is_tensor, nn

from hellods.device import CPU, float32_on_cpu
from hellods.errors import SourceError
from hellods.nets import SMALL_SIDE
from hellods.sources.folders import shorten

WRAPPERS: Final = ("state_dict", "model", "net", "model_state_dict")  # under which training scripts save the weights
EXTRA: Final = "_extra_state"  # what a module may keep beside tensors
PREFIXES: Final = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's
NEIGHBORS: Final[list[str]] = []  # modules that the last teacher's file imported from its folder
STEM: Final = "conv1.weight"  # of a ResNet


def own_network(spec: str) -> tuple[nn.Module, str]:
    """Return what the function of `FILE.py:FUNCTION` returns, called without arguments, and the SHA-256 of its code.

    The file is run, and may import its neighbors, which count as its code. What it changes in this process is put back:
    the working directory, torch's default dtype and device, whether gradients are computed.

    Raises:
        SourceError: no such file, no function or none named, the file's error, or a function that returns no module.
    """
    if Path(spec).is_file():
        raise SourceError(f"{spec}: names no function; give the teacher as FILE.py:FUNCTION")
    file, _, name = spec.rpartition(":")
    if not Path(file).is_file():
        raise SourceError(f"{file or spec}: no such file; give the teacher as FILE.py:FUNCTION")
    with _contained(file) as code:
        try:
            # Unlike an import this leaves neither a module nor a folder of bytecode behind.
            names = runpy.run_path(file, run_name="hellods_teacher")
        except (Exception, SystemExit) as cause:
            raise SourceError(f"{file}: cannot be run: {_described(cause, file)}") from cause
        function = names.get(name)
        if not callable(function):
            own = [key for key, value in names.items() if getattr(value, "__module__", None) == "hellods_teacher"]
            raise SourceError(f"{file}: no function {name!r}; it has {shorten(own) or 'none'}")
        try:
            network = function()
        except (Exception, SystemExit) as cause:
            asks = isinstance(cause, TypeError) and cause.__traceback__ and cause.__traceback__.tb_next is None
            advice = "; it is called without arguments" if asks else ""
            raise SourceError(f"{spec}: {_described(cause, file)}{advice}") from cause
    if not isinstance(network, nn.Module):
        raise SourceError(f"{spec}: returns {type(network).__name__}, expected a torch.nn.Module")
    return network, code.hexdigest()


def read_weights(path: str) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a checkpoint that holds tensors alone.

    Raises:
        SourceError: no such file, damaged, or with anything beside tensors that would have to be unpickled.
    """
    file = Path(path)
    if not file.is_file():
        raise SourceError(f"{path}: no such file; give the file of the teacher's weights")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as cause:  # several libraries, each with errors of its own
        remedy = "save its state_dict alone, best as .safetensors"
        raise SourceError(f"{path}: damaged, or not tensors alone, which could run code; {remedy}") from cause
    state = _state_dict(content)
    if state is None:
        raise SourceError(f"{path}: holds no state_dict; save the one of the teacher")
    return state


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors of a state_dict, or of the first of its wrappers that holds one."""
    if not isinstance(content, dict):
        return None
    tensors = {key: value for key, value in content.items() if EXTRA not in str(key)}
    if tensors and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()):
        return tensors
    return next(filter(None, (_state_dict(content.get(wrapper)) for wrapper in WRAPPERS)), None)


def _bare(key: str) -> str:
    """Return the name of a tensor without what wrappers of the network put before it."""
    while found := next(filter(key.startswith, PREFIXES), None):
        key = key.removeprefix(found)
    return key


def fit_weights(network: nn.Module, weights: dict[str, Tensor], where: str, classes: int) -> None:
    """Load the weights into the network.

    Raises:
        SourceError: names the first keys that differ, or the number of classes if nothing else does.
    """
    own = {name: value for name, value in network.state_dict().items() if is_tensor(value)}
    if all(key == _bare(key) for key in own):
        weights = {_bare(key): value for key, value in weights.items()}
    # BatchNorm's counters came later than many checkpoints, and torch fills them in.
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = sorted((key for key in weights if key not in own), key=lambda key: key.endswith("num_batches_tracked"))
    shapes = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    heads = {len(weights[key]) for key in shapes if weights[key].ndim and _other_head(own[key], weights[key], classes)}
    if len(heads) == 1 and not missing and not unexpected:
        raise SourceError(f"{where}: weights of {heads.pop()} classes, the data has {classes}; give another teacher")
    differ = [f"{key} is {tuple(weights[key].shape)}, expected {tuple(own[key].shape)}" for key in shapes]
    found = (("lacks", missing), ("has unexpected", unexpected), ("shape of", differ))
    if any(keys for _, keys in found):
        problems = "; ".join(f"{what} {shorten(keys)}" for what, keys in found if keys)
        raise SourceError(f"{where}: does not fit the network: {problems}; give the weights of this architecture")
    # dict() drops what a state says of its versions, which may forbid keys; what is no tensor stays as it was.
    network.load_state_dict(dict(weights), strict=False)


def side_of_stem(name: str, weights: dict[str, Tensor], side: int) -> int:
    """Return a side of images for which `nets.create` makes a ResNet-18 with the stem of these weights; else `side`."""
    stem = next((value for key, value in weights.items() if _bare(key) == STEM), None)
    if name != "resnet18" or stem is None:
        return side
    return SMALL_SIDE if stem.shape[-1] == 3 else SMALL_SIDE + 1


def published(name: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with its published weights, and the mean, std and side that it expects.

    Raises:
        SourceError: none are known, or they are not at hand and cannot be fetched.
    """
    try:
        if name in torchvision.models.list_models(module=torchvision.models):
            return _torchvision(name)
        import timm  # takes seconds

        if timm.is_model(name):
            network = timm.create_model(name, pretrained=True)
            facts: Any = network.pretrained_cfg
            return network, {"mean": facts["mean"], "std": facts["std"], "side": facts["input_size"][-1]}
    except Exception as cause:  # of the network, the cache, or timm without weights
        raise SourceError(
            f"{name}: published weights cannot be had: {_described(cause)}; bring a file of `teacher_weights`"
        ) from cause
    raise SourceError(
        f"{name}: no weights are published under this name; name a network of torchvision or timm, give its "
        "`teacher_weights`, or let a build train one (`teacher='train'`)"
    )


@contextmanager
def _contained(file: str) -> Iterator["hashlib._Hash"]:
    """Run what a file does, which may import its neighbors; yield what is, in the end, the hash of all that code."""
    while NEIGHBORS:  # which may have the names of others
        sys.modules.pop(NEIGHBORS.pop(), None)
    place, before = Path(file).resolve(), set(sys.modules)
    code, here, device = hashlib.sha256(place.read_bytes()), Path.cwd(), torch.get_default_device()
    sys.path.insert(0, str(place.parent))
    try:
        with float32_on_cpu(), torch.set_grad_enabled(torch.is_grad_enabled()):
            yield code
    finally:
        os.chdir(here)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device == CPU else device)  # None: without a mode, which costs time
        sys.path.remove(str(place.parent))
        for name in sorted(sys.modules.keys() - before):
            origin = Path(getattr(sys.modules[name], "__file__", None) or "/")
            others = name.startswith("hellods.") or "site-packages" in origin.parts
            if origin.is_relative_to(place.parent) and not others:
                code.update(name.encode() + b"\0" + origin.read_bytes())
                NEIGHBORS.append(name)


def _torchvision(name: str) -> tuple[nn.Module, dict[str, Any]]:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    network = torchvision.models.get_model(name, weights=weights, progress=False)
    return network, {"mean": preset.mean, "std": preset.std, "side": preset.crop_size[0]}


def _other_head(own: Tensor, found: Tensor, classes: int) -> bool:
    return own.ndim > 0 and len(own) == classes and own.shape[1:] == found.shape[1:]


def _described(cause: BaseException, file: str = "") -> str:
    """Return an error in one line, with the last line of a file that led to it."""
    lines = [frame.lineno for frame in extract_tb(cause.__traceback__) if frame.filename == file]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())}{place}"
