"""A training step reads nothing from the device, and inputs that are prepared ahead change nothing.

On a GPU each read waits for all work before it. Here the reads of tensors are counted on the CPU, with the parts that a
GPU takes: the fused optimizer, and a thread that prepares the next batch.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_loop import ALONE, METHODS, fit, prepared, tensors
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from train_fakes import tiny, write_folder

from leaf_rt.system.signals import StopSignal
from train.data.dataset import Images
from train.loop.batches import BatchLoader
from train.loop.checkpoint import load
from train.loop.distributed import DistributedContext
from train.loop.optimizer import build_optimizer
from train.loop.sums import RunningSums, means
from train.loop.training import Training
from train.methods.losses import contrastive_loss, fairness_loss
from train.models.face_model import build_model
from train.models.mobilefacenet import DepthwiseStride2
from train.models.moe import FusingSpec
from train.recipes.schema import Optim

# Operations whose result the host needs, or whose shape depends on values.
READING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "bincount",
    "unique",
    "equal",
    "is_nonzero",
    "repeat_inter",
)
METHODS_OF_TENSOR = ("item", "tolist", "numpy", "cpu", "nonzero")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "data")
    return tmp_path


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "train.loop.training.build_optimizer", lambda model, options, fused: build_optimizer(model, options, fused=True)
    )
    monkeypatch.setattr("train.loop.training.BatchLoader", functools.partial(BatchLoader, ahead=True))


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name.startswith(READING) or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The reads by this thread, by name. Others prepare inputs, which are on the host."""
    found: list[str] = []
    here = threading.get_ident()

    def counted(name: str, original: Any) -> Any:
        def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == here:
                found.append(name)
            return original(self, *args, **kwargs)

        return call

    with ExitStack() as stack:
        patch = stack.enter_context(monkeypatch.context())
        for name in METHODS_OF_TENSOR:
            patch.setattr(Tensor, name, counted(name, getattr(Tensor, name)))
        stack.enter_context(_Operations(found))
        yield found


def test_the_counter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(4.0)
    with host_reads(monkeypatch) as found:
        assert (x.sum() * 2).isfinite() is not None
        assert found == []
        for read in (lambda: float(x[0]), lambda: bool(x.any()), x.tolist, lambda: x[x > 1], lambda: x.nonzero()):
            found.clear()
            read()
            assert found != []


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_read_from_the_device_between_two_log_records(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = tiny(
        root, run__epochs=2, run__steps=5, run__log_every=3, augment__mixup=0.5, augment__degrade=0.5,
        augment__labelled="supervised", optim__clip=1.0, optim__name="adamw", optim__accumulate=2, data__color="rgb",
        **{"method__delay": 2, **METHODS[name]},
    )  # fmt: skip
    training = Training(recipe, prepared(recipe), ALONE, root / "run")
    between: list[list[str]] = []

    def allowed(method: Any) -> Any:
        def call(*args: Any) -> Any:
            between.append(list(found))
            result = method(*args)
            between.append([]) if found else pytest.fail("a report that reads nothing")
            found.clear()
            return result

        return call

    training.report_steps = allowed(training.report_steps)  # type: ignore[method-assign]
    training.end_epoch = allowed(training.end_epoch)  # type: ignore[method-assign]
    with host_reads(monkeypatch) as found:
        assert training.fit(None, StopSignal())
    assert len(between) == 2 * 2 * (2 + 1), "two epochs with two reports and an end each"
    assert [reads for reads in between if reads] == []


@pytest.mark.parametrize("name", ["paper", "supervised"])
def test_inputs_prepared_ahead_are_the_same(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    recipe = tiny(root, run__steps=4, optim__accumulate=2, method__delay=1, augment__mixup=0.5, **METHODS[name])
    fit(recipe, root / "plain")
    monkeypatch.setattr("train.loop.training.BatchLoader", functools.partial(BatchLoader, ahead=True))
    fit(recipe, root / "ahead", stop_after=3)
    fit(recipe, root / "ahead", resume=True)
    plain, ahead = (tensors(load(root / folder / "last.pt")) for folder in ("plain", "ahead"))
    assert [key for key in plain if not torch.equal(plain[key], ahead[key])] == []


def test_a_run_can_change_between_the_forms_of_the_optimizer(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run that goes on on a machine with a GPU, and back."""
    recipe = tiny(root, run__steps=4, optim__name="adamw", **METHODS["supervised"])
    fit(recipe, root / "plain")
    fit(recipe, root / "mixed", stop_after=3)
    with monkeypatch.context() as patch:
        patch.setattr("train.loop.training.build_optimizer", lambda *a, fused: build_optimizer(*a, fused=True))
        fused = fit(recipe, root / "mixed", resume=True, stop_after=6)
        assert all(group["fused"] and not group["foreach"] for group in fused.state.optimizer.param_groups)
    back = fit(recipe, root / "mixed", resume=True)
    assert not any(group["fused"] for group in back.state.optimizer.param_groups)
    plain, mixed = (load(root / folder / "last.pt")["student"] for folder in ("plain", "mixed"))
    for key, value in plain.items():
        torch.testing.assert_close(mixed[key], value, atol=1e-5, rtol=1e-4)


def test_masked_terms_equal_those_of_the_chosen_samples() -> None:
    rng = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 12, 5, generator=rng, requires_grad=True)
    keep = torch.arange(12) % 3 > 0
    masked, chosen = contrastive_loss(first, second, keep=keep), contrastive_loss(first[keep], second[keep])
    torch.testing.assert_close(masked, chosen, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(masked, first)
    assert gradient[~keep].abs().sum() == 0
    for few in (torch.arange(12) < 1, torch.arange(12) < 0):
        assert contrastive_loss(first, second, keep=few).item() == 0.0
    mean, histogram = torch.rand(2, 5, generator=rng).softmax(1)
    actual = fairness_loss(first, keep.float(), mean, histogram)
    # By its definition: H(SumNorm(mean / histogram), SumNorm(mean of the chosen / their histogram)).
    probs = first.detach()[keep].softmax(1)
    share = torch.tensor([(probs.argmax(1) == c).float().mean() for c in range(5)])
    own = torch.tensor([probs[:, c].mean() / share[c] if share[c] else 0.0 for c in range(5)])
    target = mean / histogram / (mean / histogram).sum()
    torch.testing.assert_close(actual, (target * (own / own.sum() + 1e-12).log()).sum(), atol=1e-5, rtol=1e-5)
    none = fairness_loss(first, torch.zeros(12), mean, histogram)
    none.backward()
    assert none.item() == 0.0


def test_sums_start_and_go_on() -> None:
    sums = RunningSums(torch.device("cpu"))
    assert sums.values() == {}
    sums.add({"loss": torch.tensor(0.1)}, 0.5)
    sums.add({"loss": torch.tensor(0.2), "judged": torch.tensor(4.0), "correct": torch.tensor(3.0)}, 0.25)
    expected = float(torch.tensor(0.1)) + float(torch.tensor(0.2))
    assert sums.values() == {"loss": expected, "judged": 4.0, "correct": 3.0, "seconds_input": 0.75}
    assert means(sums.values(), 2) == {"loss": expected / 2, "seconds_input": 0.375, "pseudo_accuracy": 0.75}
    again = RunningSums(torch.device("cpu"))
    again.load(sums.values())
    assert again.values() == sums.values()


def test_crops_that_stay_on_the_host_are_the_same() -> None:
    array = np.random.default_rng(0).integers(0, 255, (9, 1, 4, 4), dtype=np.uint8)
    rows = np.array([3, 0, 8])
    for budget in (0, 1 << 20):
        images = Images(array, torch.device("cpu"), budget)
        assert np.array_equal(images.take(images.fetch(rows)).numpy(), array[rows])
    assert Images(array, torch.device("cpu"), 0).fetch(rows).dtype == torch.uint8
    assert Images(array, torch.device("cpu")).fetch(rows).tolist() == rows.tolist()


def test_a_strided_convolution_computes_every_output_only_on_a_cpu() -> None:
    sides: list[tuple[int, ...]] = []

    class Shapes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ == "convolution":
                sides.append(tuple(out.shape[2:]))
            return out

    for device in ("cpu", "meta"):
        with Shapes():
            out = DepthwiseStride2(4).to(device).train()(torch.ones(1, 4, 8, 8, device=device))
        assert out.shape == (1, 4, 4, 4)
    assert sides == [(8, 8), (4, 4)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own calls
@pytest.mark.parametrize("backbone", ["mobilefacenet", "resnet14"])
def test_the_network_compiles_without_a_graph_break(backbone: str) -> None:
    torch._dynamo.reset()  # the counters hold what other tests compiled
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    spec = FusingSpec(4, 8)
    model = build_model(backbone, 8, dropout=0.2, folded=True, semantic=spec, instance=spec).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, results = torch.rand(4, 3, 32, 32), []
    for network in (model, compiled):
        for scale in (0.5, 0.25):  # a changed noise needs no other graph
            model.set_gate_noise(scale)
            torch.manual_seed(1)
            out = network(x)
            model.zero_grad()
            (out.logits.square().mean() + out.load.mean()).backward()
        results.append((out.logits.detach(), model.classifier.weight.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def test_the_fused_form_is_asked_for_on_a_gpu_only(root: Path) -> None:
    recipe = tiny(root, optim__name="sgd")
    assert not Training(recipe, prepared(recipe), ALONE, root / "run").state.optimizer.param_groups[0]["fused"]
    model = build_model("tiny", 8)
    for name in ("adam", "adamw", "sgd"):
        assert build_optimizer(model, Optim(name=name), fused=True).param_groups[0]["fused"]  # type: ignore[arg-type]


class _Doubled(DistributedContext):
    """Two processes, of which the second has the values of the first plus 100."""

    __slots__ = ()

    def gather(self, x: Tensor) -> Tensor:
        return torch.cat([x, x + 100])


def test_views_of_several_outputs_are_gathered_in_one_exchange() -> None:
    logits, none, gates = torch.arange(5.0)[:, None], torch.zeros(5, 0, 1), torch.arange(20.0).view(5, 2, 2)
    outputs = _Doubled(0, 2, ALONE.device).gather_views([logits, none, gates], (2, 3))
    assert [[tuple(view.shape) for view in views] for views in outputs] == [
        [(4, 1), (6, 1)], [(4, 0, 1), (6, 0, 1)], [(4, 2, 2), (6, 2, 2)],
    ]  # fmt: skip
    assert [view.flatten().tolist() for view in outputs[0]] == [[0, 1, 100, 101], [2, 3, 4, 102, 103, 104]]
    assert torch.equal(outputs[2][1], torch.cat([gates[2:], gates[2:] + 100]))
    alone = ALONE.gather_views([logits, gates], (2, 3))
    assert [torch.cat(views).equal(whole) for views, whole in zip(alone, (logits, gates), strict=True)] == [True, True]
