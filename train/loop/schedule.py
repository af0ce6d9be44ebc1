"""How long a run is, in steps and epochs. Knows recipes and numbers; must not know tensors."""

from __future__ import annotations

from dataclasses import dataclass

from train.methods.objective import uses_unlabelled
from train.recipes.schema import Method, Recipe


@dataclass(frozen=True, slots=True)
class Schedule:
    """The length of a run and the size of the network's input over time.

    Attributes:
        steps_per_epoch: Number of steps.
        total: Number of steps of the learning-rate schedule.
        end: Number of steps after which the run ends; less than ``total`` with ``run.stop``.
        input_sizes: Side of the network's input in px: one for all epochs, or one per epoch.
    """

    steps_per_epoch: int
    total: int
    end: int
    input_sizes: tuple[int, ...]

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def input_size(self, epoch: int) -> int:
        """Side of the network's input in an epoch, from 0, in px."""
        return self.input_sizes[min(epoch, len(self.input_sizes) - 1)]


def build_schedule(recipe: Recipe, labelled: int, unlabelled: int) -> Schedule:
    """The schedule of a recipe. By default an epoch is one pass over the larger set of images.

    Args:
        recipe: Of the run.
        labelled: Number of labelled training images.
        unlabelled: Number of unlabelled ones.
    """
    run = recipe.run
    steps = run.steps
    if not steps:
        passes = [1, labelled // run.batch]
        if uses_unlabelled(recipe.method):
            passes.append(unlabelled // run.batch_unlabelled)
        steps = max(passes)
    return Schedule(steps, steps * run.epochs, steps * (run.stop or run.epochs), run.input_sizes)


def gate_noise(step: int, method: Method) -> float:
    """Factor on the noise of the gates at a step, from 0: constant, or falling in a line to zero."""
    left = max(0.0, 1.0 - step / method.noise_steps) if method.noise_steps else 1.0
    return method.noise_scale * left
