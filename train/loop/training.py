"""The one training loop, in reading order: batch, views, forward, loss, step, average; evaluate, log, checkpoint.

Every random number is a function of seed and step, so a resumed run goes on where the interrupted one stood.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from leaf_rt.errors import DataError
from leaf_rt.system.signals import StopSignal
from train.augment.transforms import MEAN, STD
from train.augment.views import Views, draw_views
from train.data import splits
from train.data.dataset import Images, Stream, TrainingData
from train.loop import checkpoint
from train.loop.distributed import DistributedContext, sync_batch_norms
from train.loop.inference import autocast, predict
from train.loop.initialization import earlier, start_model
from train.loop.optimizer import (
    build_optimizer,
    ema_decay,
    learning_rate,
    set_learning_rate,
    shrink,
    update_ema,
)
from train.loop.run_log import Reporter
from train.methods.objective import BatchOutputs, build_threshold, objective, student_sees_weak
from train.metrics import measure
from train.models.face_model import FaceModel, Output, model_options
from train.recipes.schema import Recipe, shareable

_log = logging.getLogger(__name__)

SPLIT = "split.json"


class Training:
    """A run: its model, its state and its loop.

    Args:
        recipe: Resolved.
        data: What it trains on.
        world: This process among its fellows.
        out: The run's folder.
        resumed: Whether ``restore`` is to follow, so that nothing which the run began with is needed any more.
    """

    def __init__(
        self, recipe: Recipe, data: TrainingData, world: DistributedContext, out: Path, *, resumed: bool = False
    ) -> None:
        run, method, device = recipe.run, recipe.method, world.device
        self.recipe, self.data, self.world, self.out = recipe, data, world, out
        self.semi = method.weak_views > 0
        self.images = Images(data.images, device)
        self.views = Views(recipe.augment, device, channels_last=run.channels_last)
        with world.together():
            self.check_options()
            self.student = start_model(recipe, data, self.images, self.views, earlier(recipe, out), bare=resumed)
        if world.size > 1:
            if (left := sync_batch_norms(self.student)) and world.main:
                _log.warning("%d batch norms see each process's share alone; model.fold_batch_norm avoids it", left)
            world.average([*self.student.parameters(), *self.student.buffers()])
        self.ema: FaceModel = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.network: nn.Module = torch.compile(self.student) if run.compile else self.student  # type: ignore[assignment]
        if world.size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.network = DistributedDataParallel(self.network, device_ids=ids)
        self.optimizer = build_optimizer(self.student, recipe.optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=run.amp == "fp16")
        self.threshold = build_threshold(method, len(data.labels), device)
        self.labelled = Stream(len(data.labelled), run.seed * 2)
        self.unlabelled = Stream(max(len(data.unlabelled), 1), run.seed * 2 + 1)
        largest = max(len(data.labelled) // run.batch, len(data.unlabelled) // run.batch_unlabelled if self.semi else 0)
        self.steps = run.steps or max(1, largest)  # per epoch
        self.total = self.steps * run.epochs  # of the schedule
        self.end = self.steps * (run.stop or run.epochs)
        self.step = 0
        self.best = -1.0
        self.sums: dict[str, float] = {}  # of the epoch so far
        self.metrics: dict[str, Any] = {}

    def check_options(self) -> None:
        """See that the data holds what the recipe wants.

        Raises:
            DataError: It does not.
        """
        run, method, data = self.recipe.run, self.recipe.method, self.data
        if self.semi and not len(data.unlabelled):
            raise DataError(f"method {method.name}: there is no unlabelled picture; add some, or use supervised")
        if self.semi and "category" in method.levels and len(data.labels) <= method.max_positives:
            raise DataError(
                f"ambiguous pseudo-labels want more than {method.max_positives} classes, the data has "
                f"{len(data.labels)}: leave category out of --method.levels, or lower --method.max_positives"
            )
        if not len(data.labelled):
            raise DataError("there is no labelled training picture; see --labels and the split options")
        if run.select == "validation" and not len(data.validation):
            raise DataError(
                "run.select validation: there is no validation picture; give some (--data.validation), or use last"
            )
        for name, n in (("run.batch", run.batch), ("run.batch_unlabelled", run.batch_unlabelled if self.semi else 0)):
            if n % (self.world.size * self.recipe.optim.accumulate):
                raise DataError(f"{name}: wanted a multiple of processes x accumulate, got {n}")

    def fit(self, reporter: Reporter | None, stop: StopSignal) -> bool:
        """Train to the end; False where a signal stopped it early, with its state saved. The main process reports."""
        run = self.recipe.run
        while self.step < self.end:
            epoch = self.step // self.steps
            side = self.side(epoch)
            terms = self.train_step(side)
            self.check(terms["loss"])
            for name, value in terms.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.step += 1
            if reporter is not None:
                reporter.step(self.step, self.steps, self.end, terms, self.threshold.thresholds.tolist())
            if self.step % self.steps == 0:
                self.end_epoch(epoch + 1, side, reporter)
            elif run.checkpoint_steps and self.step % run.checkpoint_steps == 0:
                self.save()
            if self.world.any(stop.is_set()):
                if self.step % self.steps:
                    self.save()
                return self.step >= self.end
        return True

    def check(self, loss: float) -> None:
        """See that a step's loss is finite, the same in all processes, before anything of a diverged run is kept.

        Raises:
            DataError: It is not.
        """
        if not math.isfinite(loss):  # fp16 too: its scaler forgives gradients that overflow, while the loss is finite
            with self.world.together():
                raise self.diverged(f"the loss became {loss} at step {self.step + 1}")

    def diverged(self, what: str) -> DataError:
        """What to say of a run that came to nothing."""
        last = self.out / checkpoint.LAST
        kept = f"; {last} is from before that" if last.is_file() else ""
        return DataError(f"{what}: lower --optim.lr, which is {self.recipe.optim.lr:g}, in a new run{kept}")

    def train_step(self, side: int) -> dict[str, float]:
        """One step of the optimiser; returns the joint batch's terms, see ``objective``, and "seconds_input"."""
        run, optim = self.recipe.run, self.recipe.optim
        self.student.train()
        set_learning_rate(self.optimizer, learning_rate(self.step, self.total, optim))
        self.optimizer.zero_grad(set_to_none=True)
        parts = optim.accumulate
        sums: dict[str, float] = {"seconds_input": 0.0}
        collected: list[dict[str, Tensor]] = []
        for part in range(parts):
            torch.manual_seed(_mixed(run.seed, self.step, part, self.world.rank))  # dropout and the gates' noise
            begun = time.perf_counter()
            inputs = self.inputs(part, side)
            sums["seconds_input"] += time.perf_counter() - begun
            last = part == parts - 1
            ddp = isinstance(self.network, DistributedDataParallel) and not last
            with self.network.no_sync() if ddp else nullcontext():  # type: ignore[operator]
                loss, terms = objective(self.forward(*inputs), self.recipe.method, self.threshold)
                self.scaler.scale(loss / parts).backward()  # type: ignore[no-untyped-call]
            collected.append(terms)
        if optim.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.student.parameters(), optim.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.world.average(self.student.buffers())  # statistics of batch norms
        update_ema(self.ema, self.student, ema_decay(self.step, optim))
        if optim.shrink:
            shrink(self.student, 1.0 - optim.shrink * learning_rate(self.step, self.total, optim))
        counts = ("judged", "correct")
        for name in collected[0]:
            values = [float(terms[name]) for terms in collected]
            sums[name] = sum(values) if name in counts else sum(values) / parts
        return sums

    def inputs(self, part: int, side: int) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """The views of one micro-batch: this process's rows of the network's input, joint targets, weak views, truth.

        The random numbers are those of the joint batch whatever the number of processes.
        """
        run, method, views = self.recipe.run, self.recipe.method, self.views
        parts = self.recipe.optim.accumulate
        n = run.batch // parts
        u = run.batch_unlabelled // parts if self.semi and self.step >= method.delay else 0
        mine = self.world.share(n)
        seed = [run.seed, 2, self.step, part]
        draws = draw_views(n, u, method.weak_views, self.recipe.augment, seed)
        index = self.labelled.take(self.step * run.batch + part * n, n)
        targets = torch.from_numpy(self.data.labelled.targets[index]).to(self.world.device)
        rows = self.data.labelled.row[index]
        if draws.mix_share == 1.0:
            labelled = views.labelled(self.images[rows[mine]], draws.labelled[mine], side)
        else:  # partners may be anywhere in the joint batch
            labelled = views.labelled(self.images[rows], draws.labelled, side)
            labelled, targets = views.mixed(labelled, targets, draws)
            labelled = labelled[mine]
        batches, weak = [labelled], []
        truth = torch.zeros(0, dtype=torch.int64)
        if u:
            index = self.unlabelled.take(self.step * run.batch_unlabelled + part * u, u)
            mine = self.world.share(u)
            crops = self.images[self.data.unlabelled.row[index][mine]]
            weak = [views.weak(crops, numbers[mine], side) for numbers in draws.weak]
            batches += weak if student_sees_weak(method) else []
            batches.append(views.strong(crops, draws.strong[mine], side))
            truth = torch.from_numpy(self.data.unlabelled.label[index])
        taught = [views.finish(w) for w in weak] if method.teacher == "ema" else []
        return views.finish(torch.cat(batches)), targets, taught, truth.to(self.world.device)

    def forward(self, x: Tensor, targets: Tensor, taught: list[Tensor], truth: Tensor) -> BatchOutputs:
        """One forward of the student over all views, one of the teacher where there is one, gathered."""
        method, gather = self.recipe.method, self.world.gather
        n, u = len(targets) // self.world.size, len(truth) // self.world.size
        with autocast(self.world.device, self.recipe.run.amp):
            out: Output = self.network(x)
            weak: tuple[Tensor, ...] = ()
            if taught:
                with torch.no_grad():
                    weak = torch.split(self.ema(torch.cat(taught)).logits, u)
        seen = method.weak_views if u and student_sees_weak(method) else 0
        sizes = [n] + [u] * (seen + (1 if u else 0))
        logits, features = torch.split(out.logits, sizes), torch.split(out.features, sizes)
        own = tuple(logits[1 : 1 + seen])
        if method.teacher == "student":
            own = tuple(w.detach() for w in own)
        strong = gather(logits[-1]) if u else logits[0][:0]
        return BatchOutputs(
            labelled=gather(logits[0]),
            targets=targets,
            weak=tuple(gather(w) for w in (weak or own)),
            strong=strong,
            weak_features=tuple(gather(f) for f in features[1 : 1 + seen]) if method.lambda_s > 0 else (),
            gates=gather(out.gates),
            load=gather(out.load),
            truth=truth,
        )

    def end_epoch(self, epoch: int, side: int, reporter: Reporter | None) -> None:
        """New class thresholds, validation, log, checkpoint; ``epoch`` counts from 1."""
        run, data = self.recipe.run, self.data
        if self.recipe.method.threshold == "class" and self.semi:
            with self.world.together():
                probs = self.predict(data.labelled.row, side)
            label = torch.from_numpy(data.labelled.label)
            self.threshold.end_epoch(torch.from_numpy(probs), label, epoch)
            self.world.average([self.threshold.thresholds])
        last = self.step == self.end
        better = False
        with self.world.together():
            if self.world.main and len(data.validation) and (epoch % run.evaluate_every == 0 or last):
                probs = self.predict(data.validation.row, side)
                self.metrics = {"epoch": epoch, **measure(probs, data.validation.label, data.labels)}
                better = self.metrics["accuracy"] > self.best
                self.best = max(self.best, self.metrics["accuracy"])
        if reporter is not None:
            means = {k: v / self.steps for k, v in self.sums.items() if k not in ("judged", "correct")}
            if self.sums.get("judged"):
                means["pseudo_accuracy"] = self.sums["correct"] / self.sums["judged"]
            reporter.epoch(epoch, side, means, self.metrics, self.threshold.thresholds.tolist(), self.expert_load())
        self.sums = {}
        chosen = run.select == "validation" and better
        self.save(*([checkpoint.BEST] if chosen else []), checkpoint.LAST)  # the last, as it knows of the best

    def predict(self, rows: np.ndarray[Any, np.dtype[np.int64]], side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Probabilities of the EMA model."""
        return predict(self.ema, self.images, rows, side, self.views, self.recipe.run.amp)

    @torch.no_grad()
    def expert_load(self) -> list[list[float]]:
        """Share of some training pictures that each expert of each level answers for, by the EMA model."""
        if self.ema.semantic is None and self.ema.instance is None:
            return []
        rows = self.data.labelled.row[:256]
        crops = self.images[rows].float() / 255
        side = self.side(max(self.step - 1, 0) // self.steps)
        crops = nn.functional.interpolate(crops, (side, side), mode="bilinear", align_corners=False)
        gates = self.ema(self.views.finish(crops)).gates  # (n, L, K)
        share: list[list[float]] = gates.mean(0).tolist()
        return share

    def side(self, epoch: int) -> int:
        """Px of the network's input in an epoch, from 0."""
        sides = self.recipe.run.sides
        return sides[min(epoch, len(sides) - 1)]

    def meta(self) -> checkpoint.CheckpointMeta:
        """What a checkpoint of this moment says of itself."""
        recipe, data = self.recipe, self.data
        done = self.step // self.steps
        dim = int(self.student.encoder.dim)  # type: ignore[arg-type]
        return checkpoint.CheckpointMeta(
            labels=data.labels,
            geometry=checkpoint.Geometry(
                recipe.data.side, recipe.data.margin, recipe.data.color, self.side(max(done - 1, 0))
            ),
            mean=MEAN,
            std=STD,
            model=model_options(recipe.model, recipe.method, len(data.labels), dim),
            training={
                "recipe": shareable(recipe),
                "step": self.step,
                "steps": self.end,
                "epochs_done": done,
                "labelled": len(data.labelled),
                "unlabelled": len(data.unlabelled),
                "validation": len(data.validation),
                "split": data.split.hash,
                "data": data.split.data,
                "notes": list(data.notes),
            },
            metrics=self.metrics,
            path=self.out / checkpoint.LAST,
        )

    def save(self, *names: str) -> None:
        """Write the whole state, from the main process, under each name in turn; as ``last.pt`` where none is given.

        Raises:
            DataError: The weights are not finite.
            NoPermission, OutputError: It cannot be written.
        """
        with self.world.together():
            if not self.world.main:
                return
            if not all(bool(torch.isfinite(value).all()) for value in self.ema.state_dict().values()):
                raise self.diverged(f"the weights after step {self.step} are not finite")
            state = {
                "ema": self.ema.state_dict(),
                "student": self.student.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "threshold": self.threshold.state_dict(),
                "rng": torch.get_rng_state(),
                "step": self.step,
                "best": self.best,
                "sums": self.sums,
            }
            for name in names or (checkpoint.LAST,):
                checkpoint.save(self.out / name, self.meta(), state)
            if not (self.out / SPLIT).is_file():
                splits.save_partition(self.out / SPLIT, self.data.split)

    def restore(self) -> None:
        """Go on from the run's last checkpoint.

        Raises:
            NotFound, ModelError: There is none, or it is damaged.
            DataError: It was trained on another split.
        """
        path = self.out / checkpoint.LAST
        with self.world.together():
            content = checkpoint.load(path)
            if content["training"]["split"] != self.data.split.hash:
                raise DataError(f"{path}: was trained on another split of the data; restore {self.out / SPLIT}")
            checkpoint.load_weights(self.student, content["student"], path)
            checkpoint.load_weights(self.ema, content["ema"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.threshold.load_state_dict(content["threshold"])
        torch.set_rng_state(content["rng"])
        self.step, self.best, self.sums = content["step"], content["best"], dict(content["sums"])
        self.metrics = content["metrics"]


def _mixed(*numbers: int) -> int:
    return int(np.random.SeedSequence(list(numbers)).generate_state(1, np.uint64)[0] >> 1)
