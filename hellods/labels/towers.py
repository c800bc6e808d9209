"""Image towers of this package's own, as timm's models, by which open_clip builds them."""

from typing import Any, Final

from timm.models import register_model
from torch import nn

from hellods.nets import convnet

SIDE: Final = 32  # pixels


@register_model
def hello_convnet3(pretrained: bool = False, num_classes: int = 128, **options: Any) -> nn.Module:
    """Return the ConvNet-3 of this field's students for images of 32 px; what else timm passes has no meaning here."""
    return convnet(3, num_classes, SIDE)
