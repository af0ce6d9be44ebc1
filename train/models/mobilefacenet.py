"""MobileFaceNet (Chen et al., 2018, arXiv 1804.07573) as an encoder of faces.

Parameter names are those of the MS-Celeb-1M checkpoint that this project starts from, so that it loads key by key.
Knows convolutions; must not know labels, data or losses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Inverted residual stages: expansion t, channels c, blocks n, stride s of the first block.
STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def _conv_bn_relu(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    strided_depthwise = groups == c_in and stride == 2
    conv = (
        DepthwiseStride2(c_in)
        if strided_depthwise
        else nn.Conv2d(c_in, c_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    )
    return nn.Sequential(
        conv,
        nn.BatchNorm2d(c_out),
        nn.ReLU6(inplace=True),
    )


class DepthwiseSeparable(nn.Module):
    """3x3 depthwise, then 1x1 pointwise, each with batch norm and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, 1, 1, groups=c_in, bias=False)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        x = torch.relu(self.bn1(self.depthwise(x)))
        return torch.relu(self.bn2(self.pointwise(x)))


class DepthwiseStride2(nn.Conv2d):
    """3x3 depthwise convolution of stride 2, computed in training on a CPU at stride 1 and subsampled.

    The result is that of ``Conv2d(stride=2)``, whose backward pass in bf16 is ten times slower in oneDNN. Elsewhere it
    would only compute four times the outputs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, 2, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H / 2, W / 2)."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        return torch.nn.functional.conv2d(x, self.weight, self.bias, 1, 1, 1, self.groups)[:, :, ::2, ::2]


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a shortcut if the shapes agree (MobileNetV2)."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        self.residual = stride == 1 and c_in == c_out
        self.conv = nn.Sequential(
            _conv_bn_relu(c_in, hidden, 1),
            _conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileFaceNet(nn.Module):
    """Maps faces (B, 3, S, S) to features (B, 512). S is a multiple of 16; the checkpoint was trained at 112.

    The recognition head of the checkpoint (``gdconv``, ``conv3``, ``bn``) is not used, because its 128-d embedding is
    trained to ignore the expression. Global average pooling accepts any side: 80 px takes half the time of 112 px.
    """

    dim = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv_bn_relu(3, 64, 3, 2)
        self.dw_conv = DepthwiseSeparable(64, 64)
        blocks: list[nn.Module] = []
        c_in = 64
        for expansion, c_out, n, stride in STAGES:
            for i in range(n):
                blocks.append(InvertedResidual(c_in, c_out, stride if i == 0 else 1, expansion))
                c_in = c_out
        self.features = nn.Sequential(*blocks)
        self.conv2 = _conv_bn_relu(128, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512) of faces (B, 3, S, S)."""
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return x.mean((2, 3))  # (B, 512)
