"""From a trained network to the one module that is exported: uint8 crops in, probabilities and features out.

Knows modules; must not know files, ONNX or back ends. The gates and experts are dense maths already
(train.models.moe); what is left to do is to fold batch norms, drop what only training needs, and put the preparation
of the pixels in front.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from leaf_rt.errors import ModelError
from train.models.face_model import FaceModel

HALF_MAX = 65504.0
TOLERANCE = 1e-5  # fused against unfused: largest difference of the outputs, relative to the largest output
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, slots=True)
class Preparation:
    """What happens to the pixels inside the graph; see the fields of the same names in ``ModelSpec``."""

    side: int
    color: str
    net_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool


class Affine(nn.Module):
    """x * weight + bias per channel: what is left of a batch norm in eval mode that follows no convolution."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise ModelError("fuse: a batch norm keeps no running statistics; such a network has no eval mode")
        gain = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        shape = (1, -1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (1, -1)
        weight = gain * torch.rsqrt(var + norm.eps)
        self.register_buffer("weight", weight.view(shape))
        self.register_buffer("bias", (shift - mean * weight).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) or (B, C, H, W), as the norm took."""
        return x * self.weight + self.bias  # type: ignore[operator]


class Deployed(nn.Module):
    """The exported graph: ``faces`` (N, S, S, 3) uint8 BGR to ``probs`` (N, C) and ``features`` (N, D), float32.

    With ``flip`` each crop and its mirror image go through the network as one batch of 2 N, and both outputs are
    averaged: one batch is as quick as two calls in ONNX Runtime and a quarter quicker in OpenVINO.
    """

    def __init__(self, model: FaceModel, preparation: Preparation) -> None:
        super().__init__()
        self.model = model
        self.preparation = preparation
        self.register_buffer("mean", torch.tensor(preparation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).view(1, 3, 1, 1))

    def prepare(self, faces: Tensor) -> Tensor:
        """Crops (N, S, S, 3) uint8 BGR to normalised planes (N or 2 N, 3, s, s) float32, the mirrored after its own."""
        how = self.preparation
        blue, green, red = (faces.float() / 255.0).unbind(3)  # (N, S, S) each
        # Sums of planes, not a matrix product: OpenVINO 2026.4 fails on one that is followed by a scale.
        grey = how.color == "grey"
        x = (0.114 * blue + 0.587 * green + 0.299 * red)[:, None] if grey else torch.stack((red, green, blue), 1)
        if how.net_side != how.side:
            x = F.interpolate(x, (how.net_side, how.net_side), mode="bilinear", align_corners=False)
        if how.flip:
            x = torch.stack((x, x.flip(3)), 1).flatten(0, 1)
        return (x - self.mean) / self.std  # type: ignore[operator]

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        out = self.model(self.prepare(faces))
        probs, features = out.logits.float().softmax(1), out.features
        if self.preparation.flip:
            probs, features = probs.unflatten(0, (-1, 2)).mean(1), features.unflatten(0, (-1, 2)).mean(1)
        return probs, features


class HalfEncoder(nn.Module):
    """An encoder in float16 between float32 ends; pooling, norms and heads stay in float32 (see ``export``)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).half()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) float32 to (B, D) float32."""
        out: Tensor = self.encoder(x.half())
        return out.float()


def fuse(model: FaceModel, side: int = 64) -> FaceModel:
    """A copy in which batch norms are folded into what comes before them and dropout is gone.

    What comes before is found by running the network once, so that the order of definition does not matter. The copy is
    compared with the original.

    Args:
        model: In eval mode, float32, on the CPU. Unchanged.
        side: Of the trial input, px; one that the network can take.

    Raises:
        ModelError: The model is in training mode, or the copy does not answer as the original does.
    """
    if model.training:
        raise ModelError("fuse: the model is in training mode; load it with train.loop.checkpoint.load_model")
    fused = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(2, 3, side, side, generator=generator)
    sources = _sources(fused, trial)
    names = {module: name for name, module in fused.named_modules()}
    for norm, before in sources.items():
        if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            _put(fused, names[before], fuse_conv_bn_eval(before, norm))
            _put(fused, names[norm], nn.Identity())
        elif isinstance(before, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            _put(fused, names[before], fuse_linear_bn_eval(before, norm))
            _put(fused, names[norm], nn.Identity())
        elif isinstance(norm, _NORMS):
            _put(fused, names[norm], Affine(norm))
    for name, module in list(fused.named_modules()):
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            _put(fused, name, nn.Identity())
    fused.eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        wanted, got = model(trial), fused(trial)
    for name in ("logits", "features"):
        a, b = getattr(wanted, name), getattr(got, name)
        error = float((a - b).abs().max() / a.abs().max().clamp_min(1.0))
        if not error <= TOLERANCE:
            raise ModelError(f"fuse: folding changed the {name} by {error:.1e} (at most {TOLERANCE:.0e} is rounding)")
    return fused


def to_half(model: FaceModel) -> FaceModel:
    """A copy of a fused model whose encoder computes in float16."""
    half = copy.deepcopy(model)
    half.encoder = HalfEncoder(model.encoder)
    return half


@torch.no_grad()
def largest_activation(model: FaceModel, x: Tensor) -> tuple[float, str]:
    """The largest magnitude that any part of the encoder puts out on x (B, 3, S, S), and the part's name.

    Raises:
        ModelError: It is beyond half of what float16 holds: the fp16 engine would overflow on brighter faces.
    """
    largest, where = 0.0, ""

    def look(name: str, out: object) -> None:
        nonlocal largest, where
        if isinstance(out, Tensor) and out.is_floating_point() and float(out.abs().max()) > largest:
            largest, where = float(out.abs().max()), name

    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: look(name, out))
        for name, module in model.encoder.named_modules()
    ]
    try:
        model.encoder(x)
    finally:
        for handle in handles:
            handle.remove()
    if not largest <= HALF_MAX / 2:
        raise ModelError(
            f"fp16: {where or 'the encoder'} reaches {largest:.0f}, beyond half of what float16 holds "
            f"({HALF_MAX / 2:.0f}); export with --precision fp32"
        )
    return largest, where


@torch.no_grad()
def _sources(model: nn.Module, trial: Tensor) -> dict[nn.Module, nn.Module | None]:
    """Each batch norm, and the convolution or linear layer whose output it takes; None where there is no such layer."""
    made: dict[int, nn.Module] = {}
    kept: list[Tensor] = []  # alive until the end, so that no id is used twice
    found: dict[nn.Module, nn.Module | None] = {}
    uses: dict[nn.Module, int] = {}

    def after(module: nn.Module, _: object, out: Tensor) -> None:
        made[id(out)] = module
        kept.append(out)
        uses[module] = uses.get(module, 0) + 1

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[module] = made.get(id(inputs[0]))
        kept.append(inputs[0])

    handles = [m.register_forward_hook(after) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles += [m.register_forward_pre_hook(before) for m in model.modules() if isinstance(m, _NORMS)]
    try:
        model(trial)
    finally:
        for handle in handles:
            handle.remove()
    # A layer that is used twice has no batch norm of its own.
    return {norm: layer if layer is not None and uses[layer] == 1 else None for norm, layer in found.items()}


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module)
