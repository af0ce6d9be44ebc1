"""Several processes train like one, agree on the result, and report an error once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train_loop import ALONE, prepared, steps_of
from torch import nn
from train_fakes import tiny, write_folder

from leaf_rt.errors import DataError
from leaf_rt.system.signals import StopSignal
from train.loop import distributed
from train.loop.checkpoint import LAST
from train.loop.distributed import DistributedContext, distributed_context, sync_batch_norms
from train.loop.training import Training
from train.recipes.loading import to_toml
from train.recipes.schema import Recipe

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PART = "import sys, test_train_processes as t; from pathlib import Path; getattr(t, sys.argv[1])(Path(sys.argv[2]))"
COMPARED = ("leaf", "freematch")


def in_two(*arguments: str) -> list[tuple[int, str]]:
    """Exit code and standard error of two connected processes that run Python with these arguments."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
              "MASTER_PORT": str(port), "PYTHONWARNINGS": "error::FutureWarning",
              "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent)))}  # fmt: skip
    both = [
        subprocess.Popen([sys.executable, *arguments], env={**common, "RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        outputs = [process.communicate(timeout=300)[1] for process in both]
    finally:
        for process in both:
            process.kill()
    return [(process.returncode, stderr) for process, stderr in zip(both, outputs, strict=True)]


def in_two_parts(part: Callable[[Path], None], root: Path) -> None:
    """Run a function of this file in two processes; it must succeed in both."""
    done = in_two("-c", PART, part.__name__, str(root))
    assert [code for code, _ in done] == [0, 0], "".join(stderr for _, stderr in done)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and with the results of ``learn`` in two processes."""
    root = tmp_path_factory.mktemp("processes")
    write_folder(root / "data")
    in_two_parts(learn, root)
    return root


def compared(root: Path, name: str) -> Recipe:
    return tiny(root, method__name=name, method__noise=False, model__dropout=0.0, augment__mixup=0.9,
                method__p_cutoff=0.21, optim__name="sgd", optim__lr=0.05)  # fmt: skip


def folded(root: Path, **values: Any) -> Recipe:
    """ResNet-18, with folded batch norms unless ``values`` say otherwise."""
    given = {"model__backbone": "resnet18", "model__fold_batch_norm": True, "model__dropout": 0.0,
             "method__noise": False, "run__input_sizes": [20], "optim__lr": 1e-3, "optim__name": "sgd"}  # fmt: skip
    return tiny(root, **{**given, **values})


def recipes(root: Path) -> list[Recipe]:
    usual = {"method__name": "leaf", "method__noise": False, "model__dropout": 0.0, "method__lambda_c": 0.5,
             "optim__name": "sgd", "optim__lr": 0.05}  # fmt: skip
    # Unlabelled images that start later, and several micro-batches.
    others = [tiny(root, **usual, method__delay=1), tiny(root, **usual, optim__accumulate=2)]
    return [*(compared(root, name) for name in COMPARED), folded(root), *others]


def learn(root: Path) -> None:
    """Do some steps of each recipe, and an epoch with batch norms."""
    recipe = folded(root, model__fold_batch_norm=False, method__p_cutoff=0.1, run__epochs=1, run__steps=2,
                    optim__ema_decay=0.5, run__select="validation")  # fmt: skip
    with distributed_context("cpu") as here:
        actual = [steps_of(recipe, here) for recipe in recipes(root)]
        if here.is_main:
            (root / "two.json").write_text(json.dumps(actual))
        training = Training(recipe, prepared(recipe), here, root / "normed")
        training.fit(None, StopSignal())
        state = {**training.state.ema.state_dict(), "thresholds": training.state.threshold.thresholds}
        torch.save(state, root / f"{here.rank}.pt")


def test_two_processes_equal_one(root: Path) -> None:
    expected = [steps_of(recipe, ALONE) for recipe in recipes(root)]
    actual = json.loads((root / "two.json").read_text())
    for (one, weights, thresholds), (two, weights2, thresholds2) in zip(expected, actual, strict=True):
        for a, b in zip(one, two, strict=True):
            for key in a:
                assert a[key] == pytest.approx(b[key], abs=1e-5), key
        assert thresholds == pytest.approx(thresholds2, abs=1e-5)
        for key, value in weights.items():
            np.testing.assert_allclose(value, weights2[key], atol=1e-5, err_msg=key)
    assert all(any(t["coverage"] > 0 for t in one) for one, _, _ in expected[: len(COMPARED)])


def test_processes_agree_on_teacher_and_thresholds_with_batch_norms(root: Path) -> None:
    one, two = (torch.load(root / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert (one["encoder.bn1.running_mean"] != 0).all()
    assert [k for k, v in one.items() if not torch.equal(v, two[k])] == []
    assert {p.name for p in (root / "normed").iterdir()} == {"best.pt", LAST, "meta.json", "split.json"}


def test_batch_norms_that_are_not_synchronized_are_counted() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(2)))
    assert sync_batch_norms(net) == 2
    assert type(net[1]) is nn.BatchNorm2d


def fail_in_the_second(here: DistributedContext) -> None:
    with here.synchronized():
        if not here.is_main:
            raise DataError("of the second machine")


def wait_and_fail(root: Path) -> None:
    """The main process is slow; then the other one raises an error."""
    distributed.STEP_TIMEOUT = timedelta(seconds=1)
    with distributed_context("cpu") as here:
        with here.synchronized():
            if here.is_main:
                time.sleep(3)
        with pytest.raises(SystemExit if here.is_main else DataError):
            fail_in_the_second(here)


def test_processes_wait_for_each_other_and_an_error_in_one_ends_all(tmp_path: Path) -> None:
    in_two_parts(wait_and_fail, tmp_path)


@pytest.mark.parametrize(("option", "sentence"), [
    ("--data.path=nowhere", "nowhere"),
    ("--optim.lr=-1", "optim.lr: wanted 0 or more, got -1.0"),
    ("--out=/dev/null/run", "cannot be created"),
    ("--optim.lr=1e30", "lower --optim.lr, which is 1e+30, in a new run"),
])  # fmt: skip
def test_an_error_in_all_processes_is_reported_once(root: Path, tmp_path: Path, option: str, sentence: str) -> None:
    (tmp_path / "recipe.toml").write_text(to_toml(tiny(root)))
    options = ["--recipe", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run"), "--quiet", option]
    (code, stderr), (other, outputs) = in_two("-m", "train", *options)
    assert code == other > 2, stderr + outputs
    assert stderr.count("error:") == 1
    assert sentence in stderr
    assert "Traceback" not in stderr + outputs
    assert "error:" not in outputs
