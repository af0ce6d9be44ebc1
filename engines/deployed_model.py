"""The module that is exported: uint8 crops in, probabilities and features out.

Knows PyTorch modules; must not know files, ONNX or back ends. Gates and experts are dense operations already, see
``train.models.moe``. This file folds batch norms, removes dropout and adds the preprocessing.
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
TOLERANCE = 1e-5  # largest difference of fused and unfused outputs, relative to the largest output
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, slots=True)
class Preparation:
    """Preprocessing inside the graph; see the fields of the same names in ``ModelSpec``."""

    side: int
    color: str
    net_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool


class Affine(nn.Module):
    """x * weight + bias per channel: a batch norm in eval mode that cannot be folded into the layer before it."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise ModelError("fuse: a batch norm has no running statistics; train it with track_running_stats=True")
        gain = torch.ones_like(mean) if norm.weight is None else norm.weight.detach()
        shift = torch.zeros_like(mean) if norm.bias is None else norm.bias.detach()
        shape = (1, -1, 1, 1) if isinstance(norm, nn.BatchNorm2d) else (1, -1)
        weight = gain * torch.rsqrt(var + norm.eps)
        self.register_buffer("weight", weight.view(shape))
        self.register_buffer("bias", (shift - mean * weight).view(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to (B, C) or (B, C, H, W), float32."""
        return x * self.weight + self.bias  # type: ignore[operator]


class Deployed(nn.Module):
    """The exported graph: ``faces`` (N, S, S, 3) uint8 BGR to ``probs`` (N, C) and ``features`` (N, D), float32.

    With ``flip`` the crops and their mirror images are one batch of 2 N, and both outputs are averaged over each pair.
    Two separate calls would take the same time in ONNX Runtime and a quarter more in OpenVINO.
    """

    def __init__(self, model: FaceModel, preparation: Preparation) -> None:
        super().__init__()
        self.model = model
        self.preparation = preparation
        self.register_buffer("mean", torch.tensor(preparation.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preparation.std).view(1, 3, 1, 1))

    def prepare(self, faces: Tensor) -> Tensor:
        """Preprocess crops.

        Args:
            faces: (N, S, S, 3) uint8 BGR.

        Returns:
            (N, 3, s, s) float32, normalized; with ``flip`` (2 N, 3, s, s), each crop followed by its mirror image.
        """
        options = self.preparation
        blue, green, red = (faces.float() / 255.0).unbind(3)  # (N, S, S) each
        # A weighted sum, because OpenVINO 2026.4 fails on a matrix product that is followed by a scale.
        grey = options.color == "grey"
        x = (0.114 * blue + 0.587 * green + 0.299 * red)[:, None] if grey else torch.stack((red, green, blue), 1)
        if options.net_side != options.side:
            x = F.interpolate(x, (options.net_side, options.net_side), mode="bilinear", align_corners=False)
        if options.flip:
            x = torch.stack((x, x.flip(3)), 1).flatten(0, 1)
        return (x - self.mean) / self.std  # type: ignore[operator]

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and features; see the class."""
        out = self.model(self.prepare(faces))
        probs, features = out.logits.float().softmax(1), out.features
        if self.preparation.flip:
            probs, features = probs.unflatten(0, (-1, 2)).mean(1), features.unflatten(0, (-1, 2)).mean(1)
        return probs, features


class HalfEncoder(nn.Module):
    """An encoder that computes in float16, with float32 input and output.

    ``onnx_export.keep_in_float32`` returns pooling and norms inside it to float32; the heads never leave it.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).half()

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, S, S) float32 to (B, D) float32."""
        out: Tensor = self.encoder(x.half())
        return out.float()


def fuse(model: FaceModel, side: int = 64) -> FaceModel:
    """Copy a model without batch norms and dropout.

    Each batch norm is folded into the layer whose output it takes. Running the network once finds this layer, so the
    order of definition does not matter. The outputs of the copy are compared with those of the original.

    Args:
        model: In eval mode, float32, on the CPU. It is not changed.
        side: Size of the trial input, px.

    Returns:
        The copy.

    Raises:
        ModelError: The model is in training mode, or the outputs of the copy differ.
    """
    if model.training:
        raise ModelError("fuse: the model is in training mode; load it with train.loop.checkpoint.load_model")
    fused = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    trial = torch.randn(2, 3, side, side, generator=generator)
    layers = _layers_before_norms(fused, trial)
    names = {module: name for name, module in fused.named_modules()}
    for norm, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            _replace(fused, names[layer], fuse_conv_bn_eval(layer, norm))
            _replace(fused, names[norm], nn.Identity())
        elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            _replace(fused, names[layer], fuse_linear_bn_eval(layer, norm))
            _replace(fused, names[norm], nn.Identity())
        elif isinstance(norm, _NORMS):
            _replace(fused, names[norm], Affine(norm))
    for name, module in list(fused.named_modules()):
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            _replace(fused, name, nn.Identity())
    fused.eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        before, after = model(trial), fused(trial)
    for name in ("logits", "features"):
        a, b = getattr(before, name), getattr(after, name)
        error = float((a - b).abs().max() / a.abs().max().clamp_min(1.0))
        if not error <= TOLERANCE:
            raise ModelError(f"fuse: folding changed the {name} by {error:.1e}, more than rounding ({TOLERANCE:.0e})")
    return fused


def to_half(model: FaceModel) -> FaceModel:
    """Copy a fused model; the encoder of the copy computes in float16."""
    half = copy.deepcopy(model)
    half.encoder = HalfEncoder(model.encoder)
    return half


@torch.no_grad()
def largest_activation(model: FaceModel, x: Tensor) -> tuple[float, str]:
    """Find the largest activation of the encoder.

    Args:
        model: A fused model.
        x: (B, 3, S, S) float32, preprocessed faces.

    Returns:
        Its magnitude, and the name of the module that outputs it.

    Raises:
        ModelError: It exceeds half of the float16 range, so that brighter faces could overflow.
    """
    largest, layer = 0.0, ""

    def record(name: str, out: object) -> None:
        nonlocal largest, layer
        if isinstance(out, Tensor) and out.is_floating_point() and float(out.abs().max()) > largest:
            largest, layer = float(out.abs().max()), name

    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: record(name, out))
        for name, module in model.encoder.named_modules()
    ]
    try:
        model.encoder(x)
    finally:
        for handle in handles:
            handle.remove()
    if not largest <= HALF_MAX / 2:
        raise ModelError(
            f"fp16: {layer or 'the encoder'} outputs {largest:.0f}, more than half of the float16 range "
            f"({HALF_MAX / 2:.0f}); export with --precision fp32"
        )
    return largest, layer


@torch.no_grad()
def _layers_before_norms(model: nn.Module, trial: Tensor) -> dict[nn.Module, nn.Module | None]:
    """Map each batch norm to the convolution or linear layer whose output it takes, or to None."""
    producers: dict[int, nn.Module] = {}
    kept: list[Tensor] = []  # keeps the tensors alive, so that every id is unique
    found: dict[nn.Module, nn.Module | None] = {}
    uses: dict[nn.Module, int] = {}

    def after_layer(module: nn.Module, _: object, out: Tensor) -> None:
        producers[id(out)] = module
        kept.append(out)
        uses[module] = uses.get(module, 0) + 1

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[module] = producers.get(id(inputs[0]))
        kept.append(inputs[0])

    handles = [m.register_forward_hook(after_layer) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles += [m.register_forward_pre_hook(before_norm) for m in model.modules() if isinstance(m, _NORMS)]
    try:
        model(trial)
    finally:
        for handle in handles:
            handle.remove()
    # A layer that runs twice must not absorb a batch norm that follows only one of its outputs.
    return {norm: layer if layer is not None and uses[layer] == 1 else None for norm, layer in found.items()}


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(root.get_submodule(parent), attribute, module)
