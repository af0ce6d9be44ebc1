"""The engine runner on a fake of the few CUDA and engine calls that it makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines_fakes import CLASSES, DIM, SIDE, FakeContext, FakeCuda, FakePlan, faces, network

from leaf_rt.backends.tensorrt.runner import EngineRunner
from leaf_rt.errors import BackendError


def runner(cuda: FakeCuda, largest: int = 32, **options: Any) -> EngineRunner:
    return EngineRunner(FakePlan(cuda, network, **options), cuda, SIDE, CLASSES, DIM, largest)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 31, 32, 33, 70])
def test_any_batch_is_split_and_padded_correctly(count: int) -> None:
    cuda = FakeCuda()
    with runner(cuda) as engine:
        crops = faces(count)
        for _ in range(2):  # the first call records, the second replays
            out = engine.infer(crops)
            probs, features = network(crops)
            np.testing.assert_allclose(out.probs, probs, rtol=1e-6)
            np.testing.assert_allclose(out.features, features, rtol=1e-6)
    assert cuda.alive == {}, "not everything was freed"


def test_each_bucket_runs_once_and_is_then_recorded() -> None:
    cuda = FakeCuda()
    with runner(cuda) as engine:
        assert engine.buckets == (1, 2, 4, 8, 16, 32)
        engine.infer(faces(3))
        assert cuda.calls == [
            "upload", "execute", "download", "download", "synchronize",  # once, so that set-up is done
            "upload", "execute", "download", "download",  # into the record
            "launch", "synchronize",
        ]  # fmt: skip
        cuda.calls.clear()
        engine.infer(faces(4))  # the same bucket
        assert cuda.calls == ["launch", "synchronize"]


def test_padding_contains_no_earlier_faces() -> None:
    cuda = FakeCuda()
    with runner(cuda, largest=4) as engine:
        engine.infer(np.full((4, SIDE, SIDE, 3), 255, np.uint8))
        engine.infer(np.full((3, SIDE, SIDE, 3), 7, np.uint8))
        padding = engine._faces.array[engine._faces.nbytes(3) :]
        assert padding.max() == 0


def test_predictions_are_copies() -> None:
    with runner(FakeCuda()) as engine:
        first = engine.infer(faces(2))
        kept = first.probs.copy()
        engine.infer(faces(6)[4:])
        np.testing.assert_array_equal(first.probs, kept)


def test_a_largest_batch_that_is_not_a_power_of_two() -> None:
    with runner(FakeCuda(), largest=6) as engine:
        assert engine.buckets == (1, 2, 4, 6)
        assert engine.infer(faces(13)).probs.shape == (13, CLASSES)


def test_a_refused_shape_or_run_is_an_error() -> None:
    cuda = FakeCuda()
    with pytest.raises(BackendError, match="refuses a batch of 4"):
        EngineRunner(FakePlan(cuda, network, largest=2), cuda, SIDE, CLASSES, DIM, 4)
    assert cuda.alive == {}
    engine = runner(cuda, refuse=frozenset([4]))
    with pytest.raises(BackendError, match="refused to run a batch of 4"):
        engine.infer(faces(3))
    assert engine.infer(faces(1)).probs.shape == (1, CLASSES)  # the stream still works
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.infer(faces(1))
    assert cuda.alive == {}


def test_an_engine_that_cannot_be_recorded_runs_without_a_graph() -> None:
    class Fickle(FakeContext):
        """Refuses its second run, which is the one that is recorded."""

        runs = 0

        def execute_async_v3(self, stream: int) -> bool:
            self.runs += 1
            return self.runs != 2 and super().execute_async_v3(stream)

    for silent in (False, True):  # it refuses, or it says before that it would
        cuda = FakeCuda()
        plan = FakePlan(cuda, network, FakeContext if silent else Fickle)
        plan.recordable = not silent
        with EngineRunner(plan, cuda, SIDE, CLASSES, DIM, 4) as engine:
            for _ in range(3):
                np.testing.assert_allclose(engine.infer(faces(3)).probs, network(faces(3))[0], rtol=1e-6)
            assert cuda.recording is None
            assert "launch" not in cuda.calls
        assert cuda.alive == {}


def test_a_refused_recording_leaves_no_graph_behind() -> None:
    class Broken(FakeCuda):
        def end_capture(self, stream: int) -> int:
            raise BackendError("cudaStreamEndCapture failed on the GPU")

    cuda = Broken()
    with EngineRunner(FakePlan(cuda, network), cuda, SIDE, CLASSES, DIM, 4) as engine:
        assert engine.infer(faces(2)).probs.shape == (2, CLASSES)
        assert cuda.recording is None
    assert cuda.alive == {}


def test_each_bucket_has_its_own_context() -> None:
    """A graph must not be replayed after its context ran another shape."""
    cuda = FakeCuda()
    plan = FakePlan(cuda, network)
    with EngineRunner(plan, cuda, SIDE, CLASSES, DIM, 8) as engine:
        for count in (8, 1, 3, 8, 2):
            engine.infer(faces(count))
        assert sorted(context.shape[0] for context in plan.contexts) == [1, 2, 4, 8]


def test_small_batches_are_filled_up_to_the_smallest_of_the_profile() -> None:
    cuda = FakeCuda()
    with EngineRunner(FakePlan(cuda, network), cuda, SIDE, CLASSES, DIM, 16, 3) as engine:
        assert engine.buckets == (3, 4, 8, 16)
        np.testing.assert_allclose(engine.infer(faces(1)).probs, network(faces(1))[0], rtol=1e-6)


def test_after_an_error_of_cuda_the_rest_is_freed_and_the_cause_is_seen() -> None:
    class Failing(FakeCuda):
        broken = False

        def launch(self, graph: int, stream: int) -> None:
            self.broken = True
            raise BackendError("the first error")

        def free_graph(self, graph: int) -> None:
            super().free_graph(graph)
            if self.broken:
                raise BackendError("a later error")

    cuda = Failing()
    with pytest.raises(BackendError, match="the first error"), runner(cuda) as engine:
        engine.infer(faces(1))
    assert cuda.alive == {}


def test_an_engine_with_other_tensors_is_rejected_and_freed() -> None:
    cuda = FakeCuda()

    class Foreign(FakeContext):
        def set_tensor_address(self, name: str, address: int) -> bool:
            return name == "faces"

    with pytest.raises(BackendError, match="no tensor 'probs'"):
        EngineRunner(FakePlan(cuda, network, Foreign), cuda, SIDE, CLASSES, DIM, 4)
    assert cuda.alive == {}
