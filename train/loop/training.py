"""The training loop, in reading order: set up, loop, one step, end of an epoch, checkpoints.

Every random number is a function of seed and step, so a resumed run gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leaf_rt.errors import DataError
from leaf_rt.system.signals import StopSignal
from leaf_rt.types import F32, I64
from train.augment.transforms import MEAN, STD, resize, to_float
from train.augment.views import Views
from train.data import splits
from train.data.dataset import Images, TrainingData
from train.loop import checkpoint
from train.loop.batches import BatchLoader, MicroBatch
from train.loop.distillation import distilled
from train.loop.distributed import DistributedContext, sync_batch_norms
from train.loop.inference import autocast, predict
from train.loop.initialization import check_data, initial_checkpoint, start_model
from train.loop.optimizer import Average, build_optimizer, ema_decay, learning_rate, set_learning_rate
from train.loop.run_log import Reporter
from train.loop.schedule import build_schedule, gate_noise
from train.loop.state import TrainState
from train.loop.sums import RunningSums, means, reduce_parts
from train.methods.objective import BatchOutputs, objective, uses_unlabelled
from train.methods.ramps import build_ramp
from train.methods.thresholds import build_threshold
from train.metrics import measure
from train.models.face_model import FaceModel, Output, model_options
from train.recipes.loading import shareable
from train.recipes.schema import Recipe

_log = logging.getLogger(__name__)

SPLIT = "split.json"


class Training:
    """A run: its state and its loop.

    Args:
        recipe: The resolved recipe.
        data: The training and validation images.
        context: This process and its place among the processes of the run.
        out: Folder of the run.
        resumed: Whether ``restore`` follows, so that the files with the initial weights are not needed.
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, context: DistributedContext, out: Path, *, resumed: bool = False
    ) -> None:
        self.images, self.views = self.make_inputs(recipe, data, context)
        if recipe.distill.teacher:
            with context.synchronized():
                data = distilled(recipe, data, self.images, self.views, out)
        self.recipe, self.data, self.context, self.out = recipe, data, context, out
        with context.synchronized():
            check_data(recipe, data, context.size)
            init_from = initial_checkpoint(recipe, out)
            student = self.make_student(recipe, data, init_from, random=resumed)
        if context.size > 1:
            if (count := sync_batch_norms(student)) and context.is_main:
                _log.warning(
                    "%d batch norms see only the images of their own process; model.fold_batch_norm avoids it", count
                )
            context.average([*student.parameters(), *student.buffers()])
        self.schedule = build_schedule(recipe, len(data.labelled), len(data.unlabelled))
        self.batches = BatchLoader(recipe, data, self.images, self.views, context)
        self.state = TrainState(
            student=student,
            ema=copy.deepcopy(student).eval().requires_grad_(False),
            optimizer=build_optimizer(student, recipe.optim, fused=context.device.type == "cuda"),
            scaler=torch.amp.GradScaler(context.device.type, enabled=recipe.run.amp == "fp16"),
            threshold=build_threshold(recipe.method, len(data.labels), context.device),
            ramp=build_ramp(recipe.method, len(data.labels), context.device),
            sums=RunningSums(context.device),
        )
        self._average = Average(self.state.ema, student)
        self._network = self._wrap(student)
        self._teacher: nn.Module = torch.compile(self.state.ema) if recipe.run.compile else self.state.ema  # type: ignore[assignment]
        self._unread = RunningSums(context.device)  # since the last log record
        self._diverged_at = torch.zeros(2, dtype=torch.float64, device=context.device)  # step and loss; step 0: never

    def make_inputs(self, recipe: Recipe, data: TrainingData, context: DistributedContext) -> tuple[Images, Views]:
        """What brings images to the device, and what makes views of them."""
        views = Views(recipe.augment, context.device, channels_last=recipe.run.channels_last)
        return Images(data.images, context.device), views

    def make_student(self, recipe: Recipe, data: TrainingData, init_from: Path | None, *, random: bool) -> FaceModel:
        """The network at step 0."""
        return start_model(recipe, data, self.images, self.views, init_from, random=random)

    def _wrap(self, student: FaceModel) -> nn.Module:
        """The student as the training step calls it: compiled and distributed if the recipe says so."""
        network: nn.Module = torch.compile(student) if self.recipe.run.compile else student  # type: ignore[assignment]
        if self.context.size > 1:
            network = self.context.distribute(network, static=self.recipe.optim.accumulate == 1)
        return network

    def fit(self, reporter: Reporter | None, stop: StopSignal) -> bool:
        """Train until the end of the schedule, or until a stop signal.

        Args:
            reporter: Of the main process; None in the other processes.
            stop: Checked after every step.

        Returns:
            Whether the run is complete. If not, a checkpoint of the last step is saved.
        """
        state, schedule = self.state, self.schedule
        checkpoint_steps = self.recipe.run.checkpoint_steps
        first = state.step + 1
        while state.step < schedule.end:
            epoch = schedule.epoch(state.step)
            size = schedule.input_size(epoch)
            self.count_step(*self.train_step(size))
            if reporter is not None and state.step == first:
                reporter.began(schedule.end - first)
            at_epoch_end = state.step % schedule.steps_per_epoch == 0
            if at_epoch_end or self._unread.steps >= self.recipe.run.log_every:
                self.report_steps(reporter)
            if at_epoch_end:
                self.end_epoch(epoch + 1, size, reporter)
            elif checkpoint_steps and state.step % checkpoint_steps == 0:
                self.save()
            if self.context.any(stop.is_set()):
                if not at_epoch_end:
                    self.save()
                return state.step >= schedule.end
        return True

    def count_step(self, terms: dict[str, Tensor], seconds_input: float) -> None:
        """Count a finished step and add up its terms, on the device."""
        state = self.state
        state.step += 1
        for sums in (state.sums, self._unread):
            sums.add(terms, seconds_input)
        here = torch.stack([torch.full_like(terms["loss"], state.step), terms["loss"]])
        is_first = ~terms["loss"].isfinite() & (self._diverged_at[0] == 0)
        self._diverged_at = torch.where(is_first, here, self._diverged_at)

    def report_steps(self, reporter: Reporter | None) -> None:
        """Read the terms of the steps since the last call from the device, check the loss, and report them."""
        state, schedule = self.state, self.schedule
        self._check_loss()
        if reporter is not None:
            sums, steps = self._unread.values(), self._unread.steps
            reporter.step(state.step, schedule.steps_per_epoch, schedule.end, sums, steps, self.thresholds())
        self._unread.clear()

    def train_step(self, size: int) -> tuple[dict[str, Tensor], float]:
        """Do one step of the optimizer; ``state.step`` stays. Reads nothing from the device.

        Args:
            size: Side of the network's input, px.

        Returns:
            The terms and statistics of ``objective`` for the joint batch, float64 scalars, and the time in s that it
            took the host to make the input.
        """
        state, optim = self.state, self.recipe.optim
        rate = learning_rate(state.step, self.schedule.total, optim)
        state.student.train()
        state.student.set_gate_noise(gate_noise(state.step, self.recipe.method))
        set_learning_rate(state.optimizer, rate)
        state.optimizer.zero_grad(set_to_none=True)
        seconds_input = 0.0
        collected: list[dict[str, Tensor]] = []
        for part in range(optim.accumulate):
            # The seed of dropout and of the gates' noise.
            torch.manual_seed(_mix_seed(self.recipe.run.seed, state.step, part, self.context.rank))
            begun = time.perf_counter()
            batch = self.batches.micro_batch(state.step, part, size)
            seconds_input += time.perf_counter() - begun
            with self._gradient_sync(last=part == optim.accumulate - 1):
                loss, terms = objective(self.forward(batch), self.recipe.method, state.threshold, state.ramp)
                state.scaler.scale(loss / optim.accumulate).backward()  # type: ignore[no-untyped-call]
            collected.append(terms)
        if optim.clip:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.student.parameters(), optim.clip)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        self.context.average(state.student.buffers())  # statistics of batch norms
        self._average.update(ema_decay(state.step, optim))
        if optim.shrink:
            self._average.shrink_student(1.0 - optim.shrink * rate)
        return reduce_parts(collected), seconds_input

    @contextmanager
    def _gradient_sync(self, *, last: bool) -> Iterator[None]:
        """Exchange gradients between processes in the backward pass of the last micro-batch of a step only."""
        if isinstance(self._network, DistributedDataParallel) and not last:
            with self._network.no_sync():
                yield
        else:
            yield

    def forward(self, batch: MicroBatch) -> BatchOutputs:
        """Run the student on all its views and the EMA teacher, if the method has one, on the weak views.

        Returns:
            The outputs of the joint micro-batch, gathered from all processes.
        """
        method, sizes = self.recipe.method, batch.sizes
        weak: tuple[Tensor, ...] = ()
        with autocast(self.context.device, self.recipe.run.amp):
            out: Output = self._network(batch.inputs)
            if batch.teacher_views:
                with torch.no_grad():
                    teacher: Output = self._teacher(torch.cat(batch.teacher_views))
                (weak,) = self.context.gather_views([teacher.logits], [len(view) for view in batch.teacher_views])
        features = out.features if method.lambda_s > 0 else out.features[:, :0]
        logits, seen, gates, load = self.context.gather_views([out.logits, features, out.gates, out.load], sizes)
        if not batch.teacher_views:
            weak = logits[1:-1]
            if method.teacher == "student":
                weak = tuple(w.detach() for w in weak)
        return BatchOutputs(
            labelled=logits[0],
            targets=batch.targets,
            weak=weak,
            strong=logits[-1] if len(logits) > 1 else logits[0][:0],
            weak_features=seen[1:-1] if method.lambda_s > 0 else (),
            weak_student=logits[1:-1] if method.lambda_c > 0 else (),
            gates=torch.cat(gates),
            load=torch.cat(load),
            truth=batch.truth,
        )

    def end_epoch(self, epoch: int, size: int, reporter: Reporter | None) -> None:
        """Update the thresholds, validate, report and save a checkpoint.

        Args:
            epoch: Number of the finished epoch, from 1.
            size: Side of the network's input in that epoch, px.
            reporter: See ``fit``.
        """
        state = self.state
        if uses_unlabelled(self.recipe.method):
            state.threshold.end_epoch(lambda: self._predict_labelled(size), epoch)
        is_best = self._validate(epoch, size)
        if reporter is not None:
            terms = means(state.sums.values(), self.schedule.steps_per_epoch)
            reporter.epoch(epoch, size, terms, state.metrics, self.thresholds(), self.expert_load())
        state.sums.clear()
        if is_best and self.recipe.run.select == "validation":
            self.save(checkpoint.BEST, checkpoint.LAST)  # in this order, as last.pt records the accuracy of best.pt
        else:
            self.save()

    def thresholds(self) -> list[float]:
        """The C class thresholds; empty if the method has no pseudo-labels."""
        thresholds: list[float] = self.state.threshold.thresholds.tolist()
        return thresholds if uses_unlabelled(self.recipe.method) else []

    def _predict_labelled(self, size: int) -> tuple[Tensor, Tensor]:
        """Probabilities (N, C) of the EMA model and classes (N,) of the labelled images, equal in all processes."""
        with self.context.synchronized():
            probs = torch.from_numpy(self.predict(self.data.labelled.row, size)).to(self.context.device)
        self.context.average([probs])
        return probs.cpu(), torch.from_numpy(self.data.labelled.label)

    def _validate(self, epoch: int, size: int) -> bool:
        """Measure the EMA model in the main process, if validation is due; whether it is the best so far."""
        state, validation, labels = self.state, self.data.validation, self.data.labels
        due = epoch % self.recipe.run.evaluate_every == 0 or state.step == self.schedule.end
        is_best = False
        with self.context.synchronized():
            if self.context.is_main and len(validation) and due:
                probs = self.predict(validation.row, size, flip=True)  # as evaluation and exported models do
                state.metrics = {"epoch": epoch, **measure(probs, validation.label, labels)}
                is_best = state.metrics["accuracy"] > state.best
                state.best = max(state.best, state.metrics["accuracy"])
        return is_best

    def predict(self, rows: I64, size: int, *, flip: bool = False) -> F32:
        """Probabilities (N, C) of the EMA model for crops, see ``inference.predict``."""
        return predict(self.state.ema, self.images, rows, size, self.views, self.recipe.run.amp, flip=flip)

    @torch.no_grad()
    def expert_load(self) -> list[list[float]]:
        """For each level, the share of up to 256 labelled images that each expert of the EMA model processes."""
        ema = self.state.ema
        if ema.semantic is None and ema.instance is None:
            return []
        crops = to_float(self.images[self.data.labelled.row[:256]])
        gates = ema(self.views.finish(resize(crops, self._last_size()))).gates  # (n, L, K)
        share: list[list[float]] = gates.mean(0).tolist()
        return share

    def _last_size(self) -> int:
        """Side of the network's input in the latest step, px."""
        return self.schedule.input_size(self.schedule.epoch(max(self.state.step - 1, 0)))

    def save(self, *names: str) -> None:
        """Write the state from the main process.

        Args:
            names: File names of the checkpoints, written in this order; ``last.pt`` if empty.

        Raises:
            DataError: The loss or the weights are not finite.
            NoPermission, OutputError: A file cannot be written.
        """
        self._check_loss()
        with self.context.synchronized():
            if not self.context.is_main:
                return
            if not self.state.is_finite():
                raise self._diverged(f"the weights after step {self.state.step} are not finite")
            for name in names or (checkpoint.LAST,):
                checkpoint.save(self.out / name, self.meta(), self.state.state_dict())
            if not (self.out / SPLIT).is_file():
                splits.save_partition(self.out / SPLIT, self.data.split)

    def restore(self) -> None:
        """Load the last checkpoint of the run.

        Raises:
            NotFound, ModelError: The checkpoint is missing or damaged.
            DataError: The run was trained on another split.
        """
        path = self.out / checkpoint.LAST
        with self.context.synchronized():
            content = checkpoint.load(path)
            if content["training"]["split"] != self.data.split.hash:
                raise DataError(f"{path}: was trained on another split of the data; restore {self.out / SPLIT}")
            self.state.load_state_dict(content, path)

    def meta(self) -> checkpoint.CheckpointMeta:
        """The description of a checkpoint of the present state."""
        recipe, data, state = self.recipe, self.data, self.state
        epochs_done = self.schedule.epoch(state.step)
        dim = int(state.student.encoder.dim)  # type: ignore[arg-type]
        return checkpoint.CheckpointMeta(
            labels=data.labels,
            geometry=checkpoint.Geometry(
                side=recipe.data.side,
                margin=recipe.data.margin,
                color=recipe.data.color,
                net_side=self.schedule.input_size(max(epochs_done - 1, 0)),
            ),
            mean=MEAN,
            std=STD,
            model=model_options(recipe.model, recipe.method, len(data.labels), dim),
            training={
                "recipe": shareable(recipe),
                "step": state.step,
                "steps": self.schedule.end,
                "epochs_done": epochs_done,
                "labelled": len(data.labelled),
                "unlabelled": len(data.unlabelled),
                "validation": len(data.validation),
                "split": data.split.hash,
                "data": data.split.data,
                "notes": list(data.notes),
            },
            metrics=state.metrics,
            path=self.out / checkpoint.LAST,
        )

    def _check_loss(self) -> None:
        """Stop before anything of a diverged run is reported or saved. The loss is the same in all processes.

        Raises:
            DataError: The loss was not finite in a step.
        """
        step, loss = self._diverged_at.tolist()
        if step:  # with fp16 too: its scaler skips gradients that overflow, the loss stays finite
            with self.context.synchronized():
                raise self._diverged(f"the loss became {loss} at step {step:.0f}")

    def _diverged(self, problem: str) -> DataError:
        """The error of a run that diverged."""
        last = self.out / checkpoint.LAST
        kept = f"; {last} is from before that" if last.is_file() else ""
        return DataError(f"{problem}: lower --optim.lr, which is {self.recipe.optim.lr:g}, in a new run{kept}")


def _mix_seed(*numbers: int) -> int:
    """A 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
