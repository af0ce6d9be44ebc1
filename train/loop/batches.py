"""The network's input in every step: which images, which views of them, and which rows belong to this process.

All random numbers are a function of seed and step, and are drawn for the joint batch whatever the number of processes.
Knows data and augmentation; must not know models or losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from train.augment.views import Views, draw_view_numbers
from train.data.dataset import Images, Stream, TrainingData
from train.loop.distributed import DistributedContext
from train.methods.objective import student_sees_weak, uses_unlabelled
from train.recipes.schema import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """The input of one forward and backward pass.

    Inputs and teacher views hold the rows of this process; targets and truth belong to the joint micro-batch of B
    labelled and U unlabelled images.

    Attributes:
        inputs: (sum(sizes), 3, S, S), the student's views: labelled, weak views (if the student sees them), strong.
        sizes: Number of rows of each view in ``inputs``; a single number if there are no unlabelled images.
        targets: (B, C) target distributions.
        teacher_views: V tensors (U / processes, 3, S, S), the weak views for the EMA teacher; empty for other teachers.
        truth: (U,) int64, hidden labels of the unlabelled images, -1 if unknown.
    """

    inputs: Tensor
    sizes: tuple[int, ...]
    targets: Tensor
    teacher_views: tuple[Tensor, ...]
    truth: Tensor


class BatchLoader:
    """Makes the micro-batches of a run."""

    def __init__(
        self, recipe: Recipe, data: TrainingData, images: Images, views: Views, context: DistributedContext
    ) -> None:
        self._recipe, self._data, self._images, self._views, self._context = recipe, data, images, views, context
        self._labelled = Stream(len(data.labelled), recipe.run.seed * 2)
        self._unlabelled = Stream(max(len(data.unlabelled), 1), recipe.run.seed * 2 + 1)

    def micro_batch(self, step: int, part: int, size: int) -> MicroBatch:
        """Make a micro-batch.

        Args:
            step: Number of the step, from 0.
            part: Number of the micro-batch in the step, from 0 to ``optim.accumulate`` - 1.
            size: Side of the network's input, px.
        """
        run, method, views = self._recipe.run, self._recipe.method, self._views
        parts = self._recipe.optim.accumulate
        n, u = run.batch // parts, run.batch_unlabelled // parts
        if not uses_unlabelled(method) or step < method.unsupervised_start_step:
            u = 0
        random = draw_view_numbers(n, u, method.weak_views, self._recipe.augment, [run.seed, 2, step, part])

        index = self._labelled.take(step * run.batch + part * n, n)
        targets = torch.from_numpy(self._data.labelled.targets[index]).to(self._context.device)
        rows = self._data.labelled.row[index]
        local = self._context.local_rows(n)
        if random.mix_share == 1.0:
            labelled = views.labelled(self._images[rows[local]], random.labelled[local], size)
        else:  # the mixup partner of an image may be anywhere in the joint batch
            labelled = views.labelled(self._images[rows], random.labelled, size)
            labelled, targets = views.mixup(labelled, targets, random)
            labelled = labelled[local]

        student: list[Tensor] = [labelled]
        weak: list[Tensor] = []
        truth = torch.zeros(0, dtype=torch.int64)
        if u:
            index = self._unlabelled.take(step * run.batch_unlabelled + part * u, u)
            local = self._context.local_rows(u)
            crops = self._images[self._data.unlabelled.row[index][local]]
            weak = [views.weak(crops, numbers[local], size) for numbers in random.weak]
            student += weak if student_sees_weak(method) else []
            student.append(views.strong(crops, random.strong[local], size))
            truth = torch.from_numpy(self._data.unlabelled.label[index])
        return MicroBatch(
            inputs=views.finish(torch.cat(student)),
            sizes=tuple(len(view) for view in student),
            targets=targets,
            teacher_views=tuple(views.finish(view) for view in weak) if method.teacher == "ema" else (),
            truth=truth.to(self._context.device),
        )
