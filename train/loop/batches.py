"""The network's input in every step: which images, which views of them, and which rows belong to this process.

All random numbers are a function of seed and step, and are drawn for the joint batch whatever the number of processes.
Knows data and augmentation; must not know models or losses.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from train.augment.randaugment import StrongNumbers, arrange
from train.augment.transforms import mixup
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


class HostBatch(NamedTuple):
    """What the host draws and reads for a micro-batch, before any view is made. Tensors, sent to the device as a whole.

    The rows are those of this process, except for ``targets``, ``truth`` and, with mixup, the labelled images.

    Attributes:
        labelled: From ``Images.fetch``.
        labelled_numbers: Random numbers of the labelled views.
        targets: (B, C) target distributions of the joint micro-batch.
        partner: (B,) int64, rows of the mixup partners.
        mix_share: Weight of an image against its partner; 1 without mixup.
        unlabelled: From ``Images.fetch``; None if the step uses no unlabelled images, as all that follows.
        weak: Random numbers of each weak view.
        strong: Those of the strong view.
        truth: (U,) int64, hidden labels of the joint micro-batch, -1 if unknown.
    """

    labelled: Tensor
    labelled_numbers: Tensor
    targets: Tensor
    partner: Tensor
    mix_share: float
    unlabelled: Tensor | None
    weak: tuple[Tensor, ...]
    strong: StrongNumbers | None
    truth: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> HostBatch:
        """The same with every tensor changed."""
        strong = self.strong
        if strong is not None:
            gather, magnitudes, rest, counts = strong
            strong = StrongNumbers(change(gather), change(magnitudes), change(rest), counts)
        return HostBatch(
            change(self.labelled),
            change(self.labelled_numbers),
            change(self.targets),
            change(self.partner),
            self.mix_share,
            None if self.unlabelled is None else change(self.unlabelled),
            tuple(change(numbers) for numbers in self.weak),
            strong,
            change(self.truth),
        )


class BatchLoader:
    """Makes the micro-batches of a run.

    On a GPU the host prepares the next micro-batch in a thread while the device computes, in pinned memory, from which
    copies need no waiting. Each micro-batch depends on its number only, so the result is the same.

    Args:
        recipe: Of the run.
        data: Its images.
        images: The crops of ``data``.
        views: Makes views of the crops.
        context: This process among all processes.
        ahead: Whether to prepare the next micro-batch in a thread; by default on a GPU.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        images: Images,
        views: Views,
        context: DistributedContext,
        *,
        ahead: bool | None = None,
    ) -> None:
        self._recipe, self._data, self._images, self._views, self._context = recipe, data, images, views, context
        self._labelled = Stream(len(data.labelled), recipe.run.seed * 2)
        self._unlabelled = Stream(max(len(data.unlabelled), 1), recipe.run.seed * 2 + 1)
        on_gpu = context.device.type == "cuda"
        self._pin = on_gpu
        self._worker = ThreadPoolExecutor(1, "batches") if (on_gpu if ahead is None else ahead) else None
        self._next: tuple[tuple[int, int], Future[HostBatch]] | None = None

    def micro_batch(self, step: int, part: int, size: int) -> MicroBatch:
        """Make a micro-batch.

        Args:
            step: Number of the step, from 0.
            part: Number of the micro-batch in the step, from 0 to ``optim.accumulate`` - 1.
            size: Side of the network's input, px.
        """
        views, method, device = self._views, self._recipe.method, self._context.device
        batch = self._host_batch(step, part).each(lambda tensor: tensor.to(device, non_blocking=True))
        targets = batch.targets
        labelled = views.labelled(self._images.take(batch.labelled), batch.labelled_numbers, size)
        if batch.mix_share < 1.0:
            labelled, targets = mixup(labelled, targets, batch.mix_share, batch.partner)
            labelled = labelled[self._context.local_rows(len(targets))]
        student: list[Tensor] = [labelled]
        weak: list[Tensor] = []
        if batch.unlabelled is not None and batch.strong is not None:
            crops = self._images.take(batch.unlabelled)
            weak = [views.weak(crops, numbers, size) for numbers in batch.weak]
            student += weak if student_sees_weak(method) else []
            student.append(views.strong(crops, batch.strong, size))
        return MicroBatch(
            inputs=views.finish(torch.cat(student)),
            sizes=tuple(len(view) for view in student),
            targets=targets,
            teacher_views=tuple(views.finish(view) for view in weak) if method.teacher == "ema" else (),
            truth=batch.truth,
        )

    def _host_batch(self, step: int, part: int) -> HostBatch:
        """What ``_prepare`` returns, prepared ahead if possible."""
        if self._worker is None:
            return self._prepare(step, part)
        if self._next is None or self._next[0] != (step, part):  # the first one
            self._next = (step, part), self._worker.submit(self._prepare, step, part)
        batch = self._next[1].result()
        following = (step, part + 1) if part + 1 < self._recipe.optim.accumulate else (step + 1, 0)
        self._next = following, self._worker.submit(self._prepare, *following)
        return batch

    def _prepare(self, step: int, part: int) -> HostBatch:
        """Draw the random numbers of a micro-batch, choose its images and read them. Touches no device."""
        run, method, augment = self._recipe.run, self._recipe.method, self._recipe.augment
        parts = self._recipe.optim.accumulate
        n, u = run.batch // parts, run.batch_unlabelled // parts
        if not uses_unlabelled(method) or step < method.unsupervised_start_step:
            u = 0
        random = draw_view_numbers(n, u, method.weak_views, augment, [run.seed, 2, step, part])
        index = self._labelled.take(step * run.batch + part * n, n)
        # The mixup partner of an image may be anywhere in the joint batch.
        seen = self._context.local_rows(n) if random.mix_share == 1.0 else slice(None)
        rows = self._data.labelled.row[index]
        targets = torch.from_numpy(self._data.labelled.targets[index])
        unlabelled, strong, truth = None, None, torch.zeros(0, dtype=torch.int64)
        weak: tuple[Tensor, ...] = ()
        if u:
            chosen = self._unlabelled.take(step * run.batch_unlabelled + part * u, u)
            local = self._context.local_rows(u)
            unlabelled = self._images.fetch(self._data.unlabelled.row[chosen][local])
            weak = tuple(numbers[local] for numbers in random.weak)
            strong = arrange(random.strong[local], augment.strong_operations)
            truth = torch.from_numpy(self._data.unlabelled.label[chosen])
        batch = HostBatch(
            self._images.fetch(rows[seen]),
            random.labelled[seen],
            targets,
            random.partner,
            random.mix_share,
            unlabelled,
            weak,
            strong,
            truth,
        )
        return batch.each(lambda tensor: tensor.pin_memory()) if self._pin else batch
