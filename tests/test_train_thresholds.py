"""Thresholds: the recipe option and the classes agree, and every class defines what it does at the end of an epoch."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from train.methods.thresholds import THRESHOLDS, Threshold, build_threshold
from train.recipes.schema import Method

CPU = torch.device("cpu")


def predict_labelled() -> tuple[Tensor, Tensor]:
    """Four correct predictions with confidence 1 of class 0, and none of the other classes."""
    return torch.eye(3)[:1].expand(4, -1), torch.zeros(4, dtype=torch.int64)


def never_called() -> tuple[Tensor, Tensor]:
    raise AssertionError("the labelled images were predicted in vain")


def test_every_choice_of_the_option_has_a_threshold() -> None:
    assert set(get_args(get_type_hints(Method)["threshold"])) == set(THRESHOLDS)


@pytest.mark.parametrize("name", ["update", "end_epoch"])
def test_a_threshold_that_lacks_a_method_cannot_be_made(name: str) -> None:
    methods = {"update": lambda self, probs: None, "end_epoch": lambda self, predict_labelled, epoch: None}
    del methods[name]
    incomplete = type("Incomplete", (Threshold,), methods)
    with pytest.raises(TypeError, match=name):
        incomplete()


@pytest.mark.parametrize("kind", THRESHOLDS)
def test_thresholds_are_restored(kind: str) -> None:
    method = Method(threshold=kind)  # type: ignore[arg-type]
    first, second = build_threshold(method, 3, CPU), build_threshold(method, 3, CPU)
    first.update(torch.tensor([[0.7, 0.2, 0.1]]))
    first.end_epoch(predict_labelled, 5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.thresholds, second.thresholds)
    assert first.mask(torch.eye(3)).tolist() == [1, 1, 1]


def test_only_class_thresholds_predict_the_labelled_images() -> None:
    for kind in ("fixed", "adaptive"):
        build_threshold(Method(threshold=kind), 3, CPU).end_epoch(never_called, 1)  # type: ignore[arg-type]
    by_class = build_threshold(Method(threshold="class"), 3, CPU)
    by_class.end_epoch(predict_labelled, 5)
    assert by_class.thresholds.tolist() == pytest.approx([0.97 / (1 + 2.718281828**-5), 0.8, 0.8])
