"""U-Net for grey pictures, 1x48x48 -> a mask of the same size: 66,013 parameters, with Resize 73,249.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
arXiv:1505.04597, figure 1, with three levels, padding and batch normalization.  `unet` goes up by transposed
convolutions as the paper does; `unet_resize` repeats pixels and convolves, which leaves no checkerboard (A. Odena, V.
Dumoulin, C. Olah, "Deconvolution and Checkerboard Artifacts", Distill, 2016).
"""

from __future__ import annotations

import torch
from torch import nn

LEVELS = (12, 24, 48)


class UNet(nn.Module):
    """`image` (batch, 1, 48, 48), 0 to 1 -> logit of each pixel's being of the shape (batch, 1, 48, 48)."""

    def __init__(self, *, transposed: bool) -> None:
        super().__init__()
        top, middle, bottom = LEVELS
        self.down1, self.down2, self.bottom = twice(1, top), twice(top, middle), twice(middle, bottom)
        self.up2, self.up1 = up(bottom, middle, transposed), up(middle, top, transposed)
        self.join2, self.join1 = twice(2 * middle, middle), twice(2 * top, top)
        self.pool = nn.MaxPool2d(2)
        self.output = nn.Conv2d(top, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = self.down1(image)
        second = self.down2(self.pool(first))
        x = self.up2(self.bottom(self.pool(second)))
        x = self.up1(self.join2(torch.cat([second, x], dim=1)))
        return self.output(self.join1(torch.cat([first, x], dim=1)))


def twice(channels: int, wider: int) -> nn.Sequential:
    """Two times 3x3 convolution, batch normalization, ReLU."""
    return nn.Sequential(*convolution(channels, wider), *convolution(wider, wider))


def convolution(channels: int, wider: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]


def up(channels: int, narrower: int, transposed: bool) -> nn.Module:
    """Twice the height and width."""
    if transposed:
        return nn.ConvTranspose2d(channels, narrower, 2, stride=2)
    return nn.Sequential(nn.Upsample(scale_factor=2), *convolution(channels, narrower))


def unet() -> nn.Module:
    """The network with transposed convolutions and random weights, ready for inference."""
    return UNet(transposed=True).eval()


def unet_resize() -> nn.Module:
    """The network with Resize and random weights, ready for inference."""
    return UNet(transposed=False).eval()


def example_inputs() -> dict[str, torch.Tensor]:
    """What `forward` takes, by name."""
    return {"image": torch.rand(1, 1, 48, 48)}
