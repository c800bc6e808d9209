"""Labels by compiled code: torch.compile, with the weights as constants."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hellods.errors import LabelError
from hellods.labels.precision import BATCH_NORMS


def compiled(answer: Callable[[Tensor], Tensor], network: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return what answers as `answer` does, for any number of images, by code that is compiled when it is first asked.

    Weights are constants for the compiler (`torch._inductor.config.freezing`): it lays them out as the processor likes
    them, and does what follows a convolution within it. So they must not change any more, and gradients must be off.

    Args:
        answer: asks the network.
        network: its BatchNorms get hooks, unless it computes in float32.
        dtype: that it computes in.

    Raises:
        LabelError: here or by the answer: this machine cannot compile.
    """
    if dtype != torch.float32:
        _norms_in_float32(network, dtype)
    try:
        fast = torch.compile(answer, dynamic=True)
    except RuntimeError as cause:  # this Python is too new for this torch
        raise _refusal(cause) from cause

    def ask(images: Tensor) -> Tensor:
        from torch._dynamo import config as tracing
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor import config as compiling

        try:
            # The `options` of torch.compile would come too late: whether weights are constants is asked before. And all
            # label makers of a process count as one function, of which torch compiles eight unless told otherwise.
            with compiling.patch(freezing=True), tracing.patch(recompile_limit=1 << 16):
                return fast(images)
        except TorchDynamoException as cause:
            raise _refusal(cause) from cause

    return ask


def _refusal(cause: RuntimeError) -> LabelError:
    reason = " ".join(str(cause).strip().split("\n\n")[0].split())
    return LabelError(f"labels cannot be compiled here: {reason}: leave out compile=True")


def _norms_in_float32(network: nn.Module, dtype: torch.dtype) -> None:
    """Have each BatchNorm compute in float32, in place, as its kernel does by itself.

    Else the compiler folds it into a convolution, and a folded bias rounds alike everywhere: in bfloat16 a
    MobileNetV2's largest error is 7 % so, beyond the probe's 5, and 4.5 % as it is.
    """
    for module in network.modules():
        if isinstance(module, BATCH_NORMS):
            module.register_forward_pre_hook(lambda _, given: given[0].float())
            module.register_forward_hook(lambda _, __, output: output.to(dtype))
