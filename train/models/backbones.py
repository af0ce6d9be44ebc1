"""The encoders, which map faces (B, 3, S, S) to features (B, D). Each has the attribute ``dim`` = D.

Parameter names of ResNet-18 and ViT-B/16 are those of torchvision, so that published checkpoints load key by key.
Knows architectures and their checkpoints; must not know labels, data or losses.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leaf_rt.errors import DataError, ModelError, NotFound
from train.models.mobilefacenet import MobileFaceNet
from train.models.weights import Unreadable, mismatch, read_file

NAMES = ("resnet18", "resnet14", "mobilefacenet", "vit_b16", "tiny")
# Prefixes of the keys in published checkpoints that belong to heads, which are not used.
HEADS = {
    "resnet18": ("fc.", "classifier.", "feature."),
    "mobilefacenet": ("gdconv.", "conv3.", "bn."),
    "vit_b16": ("heads.",),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.downsample(x))


def _init_weights(net: nn.Module) -> None:
    """Initialise the convolutions as in He et al., 2015, arXiv 1502.01852."""
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


class ResNet18(nn.Module):
    """He et al., 2016, arXiv 1512.03385."""

    dim = 512

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        _init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512) of faces (B, 3, S, S)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))  # (B, 512)


class ResNet14(nn.Module):
    """One 3x3 convolution and six basic blocks, 1.4 M parameters, for faces of 48 to 64 px.

    The stem does not reduce the resolution (He et al., 2016, section 4.2): the 7x7 stem and the pooling of
    ``ResNet18`` would discard the details of small faces.
    """

    dim = 192

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(BasicBlock(32, 48, 2))
        self.layer2 = nn.Sequential(BasicBlock(48, 80, 2), BasicBlock(80, 80, 1))
        self.layer3 = nn.Sequential(BasicBlock(80, 128, 2), BasicBlock(128, 128, 1))
        self.layer4 = nn.Sequential(BasicBlock(128, self.dim, 2))
        _init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 192) of faces (B, 3, S, S)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))  # (B, 192)


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: self-attention and MLP, each with a shortcut."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim, eps=1e-6)
        # Layers 2 and 4 are dropout in torchvision; they are kept for the names of the linear layers.
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim), nn.Identity()
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class _Encoder(nn.Module):
    def __init__(self, tokens: int, layers: int, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.layers = nn.ModuleDict({f"encoder_layer_{i}": EncoderBlock(dim, heads, hidden) for i in range(layers)})
        self.ln = nn.LayerNorm(dim, eps=1e-6)


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., 2021, arXiv 2010.11929; ViT-B/16 by default. The side is any multiple of the patch size."""

    def __init__(
        self, dim: int = 768, layers: int = 12, heads: int = 12, hidden: int = 3072, patch: int = 16, side: int = 224
    ) -> None:
        super().__init__()
        self.dim = dim
        self.grid = side // patch
        self.conv_proj = nn.Conv2d(3, dim, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.encoder = _Encoder(self.grid**2 + 1, layers, dim, heads, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) of faces (B, 3, S, S)."""
        x = self.conv_proj(x)  # (B, D, h, w)
        h, w = x.shape[2:]
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self._positions(h, w)
        for layer in self.encoder.layers.values():
            x = layer(x)
        out: Tensor = self.encoder.ln(x[:, 0])
        return out

    def _positions(self, h: int, w: int) -> Tensor:
        positions = self.encoder.pos_embedding
        if (h, w) == (self.grid, self.grid):
            return positions
        grid = positions[:, 1:].transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
        return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class Tiny(nn.Module):
    """Three strided convolutions without batch norm, for tests and quick experiments."""

    dim = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(16, self.dim, 3, 2, 1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 32) of faces (B, 3, S, S)."""
        out: Tensor = self.layers(x)
        return out.mean((2, 3))


class Ensemble(nn.Module):
    """Several encoders in parallel, each with its own input size. Their features are concatenated.

    A linear classifier on the concatenated features can compute the mean of the logits of all parts (see
    ``train.loop.merging``), so that the rest of the code sees one network.

    Args:
        parts: Names of the encoders and the sides of their inputs, px.
    """

    def __init__(self, parts: Sequence[tuple[str, int]]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(build_backbone(name) for name, _ in parts)
        self.sides = [side for _, side in parts]
        dims: list[Any] = [part.dim for part in self.parts]
        self.dim = sum(dims)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) of faces (B, 3, S, S), which are resized for each part, bilinear."""
        features = []
        for part, side in zip(self.parts, self.sides, strict=True):
            same = x.shape[-1] == side
            resized = x if same else F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
            features.append(part(resized))
        return torch.cat(features, 1)


class Timm(nn.Module):
    """A network of the timm library, without its classifier."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            timm: Any = importlib.import_module("timm")
        except ImportError as e:
            raise ModelError(f"model.backbone timm:{name}: timm is not installed; `pip install timm`") from e
        try:
            self.net: nn.Module = timm.create_model(name, num_classes=0, pretrained=False)
        except RuntimeError as e:
            raise ModelError(f"model.backbone timm:{name}: timm has no such network ({e})") from e
        self.dim = int(getattr(self.net, "num_features", 0))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, D) of faces (B, 3, S, S)."""
        out: Tensor = self.net(x)
        return out


def build_backbone(name: str) -> nn.Module:
    """Build an encoder with random weights.

    Args:
        name: One of ``NAMES``, timm:NAME, or encoders with their input sides in px for an ``Ensemble``, such as
            ``mobilefacenet@96+mobilefacenet@64``.

    Raises:
        ModelError: There is no such backbone.
    """
    if "@" in name:
        parts = [part.rpartition("@") for part in name.split("+")]
        if not all(side.isdecimal() and int(side) > 0 for _, _, side in parts):
            raise ModelError(f"model.backbone: wanted NAME@SIDE+NAME@SIDE with sides in px, got {name!r}")
        return Ensemble([(part, int(side)) for part, _, side in parts])
    if name == "resnet18":
        return ResNet18()
    if name == "resnet14":
        return ResNet14()
    if name == "mobilefacenet":
        return MobileFaceNet()
    if name == "vit_b16":
        return VisionTransformer()
    if name == "tiny":
        return Tiny()
    if name.startswith("timm:"):
        return Timm(name.removeprefix("timm:"))
    raise ModelError(f"model.backbone: wanted one of {', '.join(NAMES)} or timm:NAME, got {name!r}")


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place. The output in eval mode stays the same.

    A training step without batch statistics takes half the time on a CPU (measured, docs/LOG.md).

    Args:
        model: In eval mode. Each batch norm follows its convolution in the order of a module's children.

    Raises:
        ValueError: A batch norm does not follow a convolution.
    """
    for module in list(model.modules()):
        conv: tuple[str, nn.Conv2d] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                conv = (name, child)
            elif isinstance(child, nn.BatchNorm2d):
                if conv is None:
                    raise ValueError(f"fold_batch_norm: {name} follows no convolution; it cannot be folded")
                setattr(module, conv[0], fuse_conv_bn_eval(conv[1], child))
                setattr(module, name, nn.Identity())
                conv = None
    return model


def load_backbone(encoder: nn.Module, name: str, path: Path) -> list[str]:
    """Load a published checkpoint into an encoder whose batch norms are not folded.

    Args:
        encoder: From ``build_backbone(name)``.
        name: Of the encoder.
        path: A state dict, at the top or under "state_dict", "model_state_dict" or "model". A prefix "module." is
            removed from its keys.

    Returns:
        Keys of the file that belong to its head and were not loaded.

    Raises:
        NotFound: The file is missing.
        DataError: It is not a state dict that torch loads with ``weights_only``.
        ModelError: Keys are missing, unexpected or of another shape. The message names them.
    """
    if not path.is_file():
        raise NotFound(f"model.weights {path}: no such file")
    try:
        raw = read_file(path)
    except Unreadable as e:
        raise DataError(f"model.weights {path}: cannot be loaded as a state dict: {e}") from e
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(raw, dict) and isinstance(raw.get(key), dict):
            raw = raw[key]
    if not isinstance(raw, dict):
        raise DataError(f"model.weights {path}: wanted a state dict, got {type(raw).__name__}")
    state = {k.removeprefix("module.").removeprefix("encoder.") if name != "vit_b16" else k.removeprefix("module."): v
             for k, v in raw.items() if isinstance(k, str) and isinstance(v, Tensor)}  # fmt: skip
    heads = HEADS.get(name, ("head.", "fc.", "classifier."))
    used = {k: v for k, v in state.items() if not k.startswith(heads)}
    if difference := mismatch(encoder.state_dict(), used, optional=("num_batches_tracked",)):
        raise ModelError(f"model.weights {path}: does not fit {name} ({difference})")
    encoder.load_state_dict(used, strict=False)
    return sorted(set(state) - set(used))
