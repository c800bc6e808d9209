import torch
from torchvision.transforms.v2 import functional as TF

from hellods.views.normalize import normalize

LEVELS = torch.arange(256, dtype=torch.uint8).expand(1, 3, 4, 256)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_images_are_what_torchvision_makes_of_them() -> None:
    theirs = TF.normalize(TF.to_dtype(LEVELS, torch.float32, scale=True), list(MEAN), list(STD))
    torch.testing.assert_close(normalize(LEVELS, list(MEAN), STD), theirs, atol=1e-6, rtol=1e-6)


def test_images_do_not_depend_on_the_default_dtype() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.6, 0.5, 0.7)  # of no other test, since constants are kept
    torch.set_default_dtype(torch.float64)
    try:
        found, lent = normalize(LEVELS, mean, std), torch.empty(LEVELS.shape, dtype=torch.float32)
        normalize(LEVELS, mean, std, lent)
    finally:
        torch.set_default_dtype(torch.float32)
    scale = torch.tensor([1 / (255 * unit) for unit in std], dtype=torch.float32).view(3, 1, 1)
    shift = torch.tensor([-middle / unit for middle, unit in zip(mean, std, strict=True)], dtype=torch.float32)
    expected = LEVELS.float() * scale + shift.view(3, 1, 1)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert torch.equal(lent, expected)


def test_images_are_the_same_on_another_device(accelerator: str) -> None:
    assert torch.equal(normalize(LEVELS.to(accelerator), MEAN, STD).cpu(), normalize(LEVELS, MEAN, STD))
