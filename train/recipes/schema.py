"""The options of a run: one frozen dataclass per section of a recipe.

This is the only description of each option. The checks, the command line and the documentation are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from train.recipes.options import Option, describe, option

RECIPE = "recipe.toml"  # the resolved recipe in a run's folder
BUNDLED = "bundled"  # value of model.weights: the network of the bundled model
BUNDLED_BACKBONE = "mobilefacenet"
LEVELS = ("semantic", "instance", "category")


@dataclass(frozen=True, slots=True)
class Data:
    """The images, and how faces are cropped from them."""

    path: str = option("", "Folder or list file of the data set.", short="data", local=True, resumable=True)
    layout: Literal["auto", "folder", "list", "ferplus", "rafdb", "affectnet7", "affectnet8", "fer2013"] = option(
        "auto", "Format of the data set; auto detects it.", short="layout"
    )
    unlabelled: str = option(
        "", "Folder or zip archive with more unlabelled images, of any source.", local=True, resumable=True
    )
    cache: str = option(
        "", "Folder for the cropped faces; empty: in the user's cache folder.", local=True, resumable=True
    )
    side: int = option(64, "Width and height of the cached crops.", low=8, high=4096, unit="px")
    margin: float = option(0.05, "Space around the face, as a share of the crop's side.")
    color: Literal["grey", "rgb"] = option("grey", "Color of the crops.")
    align: bool = option(True, "Find and align faces; false uses the whole images.")
    detector: Literal["auto", "onnxruntime", "openvino", "mediapipe"] = option(
        "auto", "What runs the face detector; mediapipe sends usage statistics.", short="detector", local=True,
        resumable=True,
    )  # fmt: skip
    targets: Literal["hard", "soft"] = option(
        "hard", "soft: train on the distribution of votes where the data set has votes."
    )
    duplicates: Literal["report", "drop"] = option(
        "report", "What to do with training images that are copies of validation or test images."
    )
    validation: float = option(
        0.1, "Share of the training images held out where the data set has no validation split.", low=0, high=0.9
    )

    def with_crops(self, side: int, margin: float, color: str) -> Data:
        """The same images with crops of another geometry, such as that of a model."""
        return replace(self, side=side, margin=margin, color=OPTIONS["data.color"].convert(color, "crops"))


@dataclass(frozen=True, slots=True)
class Split:
    """The training images whose labels are used."""

    kind: Literal["all", "balanced", "floor", "uneven", "longtail", "share"] = option(
        "all", "How labelled images are chosen. Default: balanced with labels, share with share, otherwise all."
    )
    labels: int = option(0, "Number of labelled images; 0 with kind all.", low=0, short="labels")
    share: float = option(0.0, "Share of the training images that are labelled, for kind share.", low=0, high=1)
    seed: int = option(0, "Random seed of the choice.", low=0, high=2**32 - 1)
    folds: int = option(0, "Number of cross-validation folds of the training images; 0: none.", low=0)
    fold: int = option(0, "The fold that is the validation split; the first is 0.")
    rare: str = option("fear", "Class with fewer labels, for kind uneven.")
    imbalance: float = option(10.0, "Labels of the largest class over those of the smallest, for longtail.", low=1)
    counts: tuple[str, ...] = option((), 'Labels of chosen classes as "class=n", for kind uneven.')
    path: str = option("", "File of a saved split; it is created if missing.", local=True, resumable=True)


@dataclass(frozen=True, slots=True)
class Model:
    """The network, without the levels of the method."""

    backbone: str = option(
        "resnet18", "Network: resnet18, resnet14, mobilefacenet, vit_b16, or timm:NAME.", short="backbone"
    )
    weights: str = option(
        "",
        "File with weights of the backbone to start from; bundled: the network of the bundled model.",
        short="weights",
        local=True,
        resumable=True,
    )
    dropout: float = option(0.5, "Dropout rate before the classifier.", low=0, high=0.99)
    fold_batch_norm: bool = option(False, "Fold batch norms into convolutions before training.")
    recalibrate: int = option(0, "Batches for new batch-norm statistics before folding.", low=0, unit="batches")
    zero_head: bool = option(False, "Start the classifier at zero.")


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of the training images."""

    labelled: Literal["weak", "supervised"] = option(
        "weak", "View of labelled images; supervised is stronger, for training without unlabelled images."
    )
    strength: float = option(1.0, "Scale of the ranges of the supervised view.", low=0)
    degrade: float = option(
        0.0, "Share of labelled images made dark, blurred, small, noisy, compressed or covered.", low=0, high=1
    )
    mixup: float = option(0.0, "Share of steps that mix the labelled batch with itself.", low=0, high=1)
    mixup_alpha: float = option(0.4, "Parameter of mixup's beta distribution.", low=1e-3)
    crop_padding: float = option(8 / 224, "Largest shift of the random crop, as a share of the side.", low=0, high=0.5)
    strong_operations: int = option(3, "RandAugment operations of the strong view.", low=0, high=14)
    cutout: float = option(0.5, "Largest side of the erased square, as a share of the side.", low=0, high=1)


@dataclass(frozen=True, slots=True)
class Method:
    """The losses. ``name`` and ``mode`` select a preset for the other options."""

    name: Literal["supervised", "fixmatch", "freematch", "adacm", "leaf"] = option(
        "leaf", "Training method; it sets the defaults of the other options of this section.", short="method"
    )
    mode: Literal["paper", "official"] = option(
        "paper", "LEAF as described in the paper, or as in the authors' code.", short="mode"
    )
    levels: tuple[Literal["semantic", "instance", "category"], ...] = option((), "Levels of LEAF.")
    weak_views: int = option(2, "Weak views of each unlabelled image.", low=0, high=2)
    unsupervised_start_step: int = option(
        0, "First step that uses unlabelled images.", low=0, unit="steps", old=("method.delay",)
    )
    teacher: Literal["ema", "student", "student-grad"] = option(
        "ema", "Model that makes the pseudo-labels; with student-grad the weight of the ambiguous loss has a gradient."
    )
    unsupervised: Literal["hard", "ambiguous", "both", "masked", "scalar"] = option(
        "both", "Loss of unlabelled images."
    )
    threshold: Literal["fixed", "class", "adaptive"] = option(
        "class", "Confidence threshold: fixed, per class (Ada-CM), or adaptive (FreeMatch)."
    )
    p_cutoff: float = option(0.8, "Fixed threshold, or smallest class threshold.", low=0, high=1)
    min_confidence: float = option(
        0.0, "Smallest top probability for the ambiguous loss.", low=0, high=1, old=("method.floor",)
    )
    weight: Literal["concave", "linear", "convex", "none"] = option("concave", "Weight of an ambiguous image.")
    rescale: Literal["plain", "weighted", "none"] = option(
        "weighted", "Scale of the ambiguous loss; plain is as published."
    )
    ramp: Literal["none", "share", "class", "entropy"] = option(
        "none",
        "How the ambiguous loss grows with confidence: by the running share of confident images, by each image's "
        "confidence against a running threshold of its class, or by the entropy of its prediction.",
    )
    ramp_power: float = option(1.0, "Power of the ramp's factor; above 1 the ramp starts lower.", low=0)
    ramp_momentum: float = option(0.99, "Decay of the running values of the ramp, per step.", low=0, high=1)
    mass: float = option(0.9, "Probability that the positive classes and the next one must reach.", low=0, high=1)
    max_positives: int = option(3, "Most positive classes of an ambiguous image.", low=1)
    temperature: float = option(0.07, "Temperature of the contrastive loss.", low=1e-3)
    lambda_x: float = option(0.5, "Weight of the labelled loss.", low=0)
    lambda_u: float = option(1.0, "Weight of the unlabelled loss.", low=0)
    lambda_s: float = option(0.1, "Weight of the contrastive loss.", low=0)
    lambda_c: float = option(
        0.0, "Weight of the consistency loss between the predictions of two weak views; needs method.weak_views 2.",
        low=0,
    )  # fmt: skip
    fairness: float = option(0.0, "Weight of FreeMatch's fairness loss.", low=0)
    balance: float = option(0.01, "Weight of the load-balance loss of the experts.", low=0)
    experts: int = option(8, "Experts of each level.", low=1)
    k: int = option(2, "Active experts for each image, 1 to method.experts.")
    hidden: int = option(0, "Width of a semantic expert; 0: half of the feature's length.", low=0)
    hidden_instance: int = option(32, "Width of an instance expert.", low=1)
    shared: bool = option(False, "Use one expert in all places.")
    combine: Literal["sum", "log"] = option("sum", "How the outputs of the experts are combined.")
    noise: bool = option(True, "Add noise to the gate of the experts during training.")
    noise_scale: float = option(1.0, "Factor on the noise of the gate.", low=0)
    noise_steps: int = option(
        0, "Steps over which the noise of the gate falls to zero; 0: it stays.", low=0, unit="steps"
    )
    mlp_baseline: bool = option(
        False, "Replace the experts by a residual MLP with as many parameters.", old=("method.control",)
    )
    instance_on: Literal["logits", "features"] = option("logits", "Input of the instance level.")
    unit_features: bool = option(False, "Scale features to unit length.")


@dataclass(frozen=True, slots=True)
class Distill:
    """A finished model that helps to label the training images."""

    teacher: str = option(
        "", "Run or checkpoint (.pt) of the teacher; bundled: the bundled model; empty: no distillation.", local=True
    )
    weight: float = option(0.5, "Share of the teacher in the targets of labelled images.", low=0, high=1)
    balance: float = option(
        0.5, "How much more often unlabelled images of rare classes occur: 0 as they are, 1 as often as the others.",
        low=0, high=1,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Optim:
    """The optimizer."""

    name: Literal["adam", "adamw", "sgd"] = option("adam", "Optimizer.")
    lr: float = option(5e-4, "Learning rate.", low=0)
    weight_decay: float = option(0.0, "Weight decay of matrices and kernels.", low=0)
    head_lr: float = option(1.0, "Learning rate of all layers after the encoder, as a multiple of lr.", low=0)
    schedule: Literal["constant", "cosine"] = option("constant", "Learning-rate schedule.")
    warmup: int = option(0, "Warm-up of the learning rate.", low=0, unit="steps")
    clip: float = option(0.0, "Largest gradient norm; 0: no clipping.", low=0)
    accumulate: int = option(1, "Micro-batches per step.", low=1)
    shrink: float = option(0.0, "After each step, multiply the student's parameters by 1 - shrink * lr.", low=0)
    ema_decay: float = option(0.999, "Decay of the exponential moving average (EMA) of the weights.", low=0, high=1)
    ema_ramp: bool = option(False, "Start with a low decay: min(decay, (step + 1) / (step + 10)).")


@dataclass(frozen=True, slots=True)
class Run:
    """Length, batches, device and output of the run."""

    init_from: str = option(
        "",
        "Start from the EMA model of this checkpoint (.pt), or of this recipe, which is trained first.",
        local=True,
        old=("run.before",),
    )
    epochs: int = option(20, "Number of epochs.", low=1, short="epochs")
    stop: int = option(0, "Stop after this epoch but keep the schedule of all epochs; 0: off.", low=0)
    steps: int = option(0, "Steps per epoch; 0: one pass over the larger set of images.", low=0, short="steps")
    batch: int = option(16, "Labelled images per step, over all processes.", low=1, short="batch")
    batch_unlabelled: int = option(16, "Unlabelled images per step, over all processes.", low=1)
    input_sizes: tuple[int, ...] = option(
        (224,), "Size of the network's input: one, or one per epoch.", low=8, high=4096, unit="px",
        short="input-sizes", old=("run.sides", "sides"),
    )  # fmt: skip
    seed: int = option(0, "Random seed of the training.", low=0, high=2**32 - 1, short="seed")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "Device to train on.", short="device", resumable=True)
    amp: Literal["auto", "off", "bf16", "fp16"] = option(
        "auto", "Mixed precision; auto measures a step and takes bf16 if it is quicker than fp32 here.", short="amp"
    )
    channels_last: bool = option(False, "Use the channels-last memory format.")
    compile: bool = option(False, "Compile the network with torch.compile.")
    threads: int = option(0, "CPU threads; 0: PyTorch's default.", low=0, high=4096, short="threads", resumable=True)
    select: Literal["last", "validation"] = option(
        "last", "Model to keep: EMA of the last epoch, or the EMA that is best on the validation split."
    )
    compare: Literal["none", "bundled", "supervised"] = option(
        "none",
        "After training, compare the model on the test or held-out pictures with the bundled model, or with it and "
        "with a supervised run of the same labels, which is trained then.",
        short="compare", resumable=True,
    )  # fmt: skip
    evaluate_every: int = option(1, "Epochs between evaluations.", low=1, unit="epochs")
    log_every: int = option(50, "Steps between log records.", low=1, unit="steps", resumable=True)
    checkpoint_steps: int = option(
        0, "Steps between checkpoints within an epoch; 0: only at its end.", low=0, unit="steps", resumable=True
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """All options of a run."""

    data: Data = field(default_factory=Data)
    split: Split = field(default_factory=Split)
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    method: Method = field(default_factory=Method)
    distill: Distill = field(default_factory=Distill)
    optim: Optim = field(default_factory=Optim)
    run: Run = field(default_factory=Run)


SECTIONS: dict[str, type] = {
    "data": Data,
    "split": Split,
    "model": Model,
    "augment": Augment,
    "method": Method,
    "distill": Distill,
    "optim": Optim,
    "run": Run,
}
OPTIONS: dict[str, Option] = {o.key: o for name, table in SECTIONS.items() for o in describe(name, table)}
ALIASES = {old: o.key for o in OPTIONS.values() for old in o.old if "." in old}


def options_markdown() -> str:
    """All options as Markdown: a heading and a table for each section."""
    lines: list[str] = []
    for section, table in SECTIONS.items():
        lines += [f"### [{section}]", "", str(table.__doc__), ""]
        lines += ["| option | default | values | meaning |", "|---|---|---|---|"]
        for o in OPTIONS.values():
            if o.section == section:
                names = f"`{section}.{o.name}`" + (f", `--{o.short}`" if o.short else "")
                default = f"`{o.default_text}`" if o.default_text else ""
                lines.append(f"| {names} | {default} | {o.kind} | {o.help} |")
        lines.append("")
    return "\n".join(lines)
