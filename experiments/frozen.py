"""Training of the late layers alone, on stored outputs of frozen early layers. It ranks methods in a tenth of the time.

Every image has a few stored views instead of new ones in every step. Knows MobileFaceNet and the training loop; must
not know methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.packed import digest, load_packed, unpack_weights
from leaf_rt.errors import DataError, NotFound
from leaf_rt.system.files import make_folder
from leaf_rt.types import F32, I64
from train.augment.randaugment import StrongNumbers, arrange
from train.augment.transforms import to_float
from train.augment.views import Views, draw_view_numbers
from train.data.dataset import Images, TrainingData
from train.loop.distributed import DistributedContext
from train.loop.initialization import start_model
from train.loop.training import Training
from train.models.face_model import FaceModel
from train.models.mobilefacenet import MobileFaceNet
from train.recipes.loading import load_recipe
from train.recipes.schema import Recipe

CUT = 12  # the inverted residual blocks before this one are frozen
WEAK, STRONG = 6, 8  # stored views of each training image
_BATCH = 250


class LateLayers(MobileFaceNet):
    """A MobileFaceNet that also takes the output of its early layers, (B, 128, S / 8, S / 8), as the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 512) of faces or of outputs of the early layers."""
        if x.shape[1] == 3:
            x = early(self, x)
        x = self.conv2(self.features[CUT:](x))
        return x.mean((2, 3))  # (B, 512)


def early(encoder: MobileFaceNet, x: Tensor) -> Tensor:
    """Output (B, 128, S / 8, S / 8) of the early layers for faces (B, 3, S, S)."""
    out: Tensor = encoder.features[:CUT](encoder.dw_conv(encoder.conv1(x)))
    return out


class Features:
    """Stored outputs of the early layers, in place of ``train.data.dataset.Images``.

    Args:
        path: File of ``freeze``. It is mapped into memory, so programs side by side share it.

    Attributes:
        training: (N, 1 + WEAK + STRONG, 128, S, S) float16: each training image as it is, and its views.
        validation: (M, 2, 128, S, S) float16: each validation image and its mirror image.
        encoder: Weights of the whole encoder, with its batch norms folded.
        source: SHA-256 of the packed file that it was made from.

    Raises:
        NotFound: The file is missing.
        DataError: It is no such file.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NotFound(f"--features {path}: no such file; make it with python -m experiments freeze")
        try:
            content = torch.load(path, mmap=True, weights_only=True)
            self.training, self.validation = content["training"], content["validation"]
            self.encoder: dict[str, Tensor] = content["encoder"]
            self.source, layout = str(content["source"]), content["layout"]
        except Exception as e:  # torch.load raises several kinds
            raise DataError(f"--features {path}: is no file of python -m experiments freeze ({e})") from e
        if layout != [CUT, WEAK, STRONG]:
            raise DataError(
                f"--features {path}: is of another version; make it again with python -m experiments freeze"
            )

    def fetch(self, rows: I64) -> Tensor:
        """See ``Images``."""
        return torch.from_numpy(rows)

    def take(self, sent: Tensor) -> Tensor:
        """All views (n, 1 + WEAK + STRONG, 128, S, S) of training images."""
        return self.training[sent]

    def plain(self, rows: I64, *, flip: bool) -> list[Tensor]:
        """Images without augmentation, (n, 128, S, S) float32; with ``flip`` also their mirror images, if stored."""
        count = len(self.training)
        if len(rows) and rows.min() >= count:
            found = self.validation[torch.from_numpy(rows - count)]
            return [found[:, i].float() for i in range(2 if flip else 1)]
        return [self.training[torch.from_numpy(rows), 0].float()]


class StoredViews(Views):
    """Chooses among the stored views of images in place of making new ones."""

    def finish(self, images: Tensor) -> Tensor:
        """The network's input."""
        return images.float().contiguous(memory_format=self.format)

    def labelled(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """A weak view of each labelled image."""
        return self.weak(crops, u, side)

    def weak(self, crops: Tensor, u: Tensor, side: int) -> Tensor:
        """A weak view of each image."""
        return _choose(crops, 1 + (u[:, 0] * WEAK).long())

    def strong(self, crops: Tensor, numbers: StrongNumbers, side: int) -> Tensor:
        """A strong view of each image."""
        return _choose(crops, 1 + WEAK + (numbers.rest[:, 0] * STRONG).long())


def _choose(views: Tensor, which: Tensor) -> Tensor:
    return views[torch.arange(len(views)), which]


class FrozenTraining(Training):
    """A run that trains the late layers on stored outputs of the early ones. Its checkpoints hold the whole network.

    Args:
        recipe: The resolved recipe.
        data: The images of the packed file.
        context: This process.
        out: Folder of the run.
        features: Made from the same packed file.
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, context: DistributedContext, out: Path, features: Features
    ) -> None:
        self._features = features
        super().__init__(recipe, data, context, out)

    def make_inputs(self, recipe: Recipe, data: TrainingData, context: DistributedContext) -> tuple[Any, Views]:
        """The stored features and their views."""
        return self._features, StoredViews(recipe.augment, context.device, channels_last=recipe.run.channels_last)

    def make_student(self, recipe: Recipe, data: TrainingData, init_from: Path | None, *, random: bool) -> FaceModel:
        """The network with the stored encoder, of which the early layers are frozen."""
        model = start_model(recipe, data, self.images, self.views, random=True)  # the encoder is replaced
        late = LateLayers()
        late.__dict__.update(model.encoder.__dict__)  # the modules as they are, with their batch norms folded
        late.load_state_dict(self._features.encoder)
        for part in (late.conv1, late.dw_conv, late.features[:CUT]):
            part.requires_grad_(False)
        model.encoder = late
        if recipe.model.zero_head:
            nn.init.zeros_(model.classifier.weight)
            nn.init.zeros_(model.classifier.bias)
        return model

    @torch.no_grad()
    def predict(self, rows: I64, size: int, *, flip: bool = False) -> F32:
        """See ``Training``."""
        collected = []
        for start in range(0, len(rows), _BATCH):
            views = self._features.plain(rows[start : start + _BATCH], flip=flip)
            probs = [self.state.ema(self.views.finish(view)).logits.softmax(1) for view in views]
            collected.append(torch.stack(probs).mean(0))
        return np.asarray(torch.cat(collected).numpy(), np.float32)

    @torch.no_grad()
    def expert_load(self) -> list[list[float]]:
        """See ``Training``."""
        ema = self.state.ema
        if ema.semantic is None and ema.instance is None:
            return []
        (view,) = self._features.plain(self.data.labelled.row[:256], flip=False)
        share: list[list[float]] = ema(self.views.finish(view)).gates.mean(0).tolist()
        return share


@torch.no_grad()
def freeze(recipe: Recipe, packed: Path, out: Path) -> dict[str, int]:
    """Store the outputs of the early layers for all images of a packed file.

    Args:
        recipe: Its augmentation, input size and start weights are used; seed 0 for the batch norms' statistics.
        packed: File of ``experiments.packed``.
        out: The file.

    Returns:
        "training", "validation" and "bytes" of the file.
    """
    make_folder(out.parent, "--out")
    recipe = load_recipe(recipe, {"model.weights": unpack_weights(packed, out.parent), "data.side": side_of(recipe)})
    data, device, side = load_packed(packed, recipe.split), torch.device("cpu"), side_of(recipe)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    images = Images(data.images, device)
    views = Views(recipe.augment, device, channels_last=recipe.run.channels_last)
    encoder = start_model(recipe, data, images, views).eval().encoder
    assert isinstance(encoder, MobileFaceNet)
    count = len(data.images) - len(data.validation)

    def outputs(x: Tensor) -> Tensor:
        return early(encoder, views.finish(x)).half().contiguous()

    training, validation = [], []
    for start in range(0, count, _BATCH):
        crops = images[np.arange(start, min(start + _BATCH, count))]
        random = draw_view_numbers(0, len(crops), WEAK, recipe.augment, [0, 3, start])
        strong = [draw_view_numbers(0, len(crops), 0, recipe.augment, [0, 4, start, i]).strong for i in range(STRONG)]
        made = [to_float(crops), *(views.weak(crops, numbers, side) for numbers in random.weak)]
        made += [views.strong(crops, arrange(u, recipe.augment.strong_operations), side) for u in strong]
        training.append(torch.stack([outputs(x) for x in made], 1))
    for start in range(count, len(data.images), _BATCH):
        crops = to_float(images[np.arange(start, min(start + _BATCH, len(data.images)))])
        validation.append(torch.stack([outputs(crops), outputs(crops.flip(3))], 1))
    content = {"training": torch.cat(training), "validation": torch.cat(validation), "encoder": encoder.state_dict()}
    torch.save({**content, "source": digest(packed), "layout": [CUT, WEAK, STRONG]}, out)
    return {"training": count, "validation": len(data.validation), "bytes": out.stat().st_size}


def side_of(recipe: Recipe) -> int:
    """Side of the network's input, px."""
    return recipe.run.input_sizes[0]
