"""The recipe of a user's own faces."""

from __future__ import annotations

import pytest

from leaf_rt.models.spec import DEFAULT_MODEL, load_spec
from train.recipes.choice import DEFAULT_RECIPES, choose
from train.recipes.loading import load_recipe
from train.recipes.schema import BUNDLED


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_own_faces_start_from_the_bundled_network(device: str) -> None:
    recipe, _ = choose(None, {}, device)
    assert (recipe.model.weights, recipe.model.fold_batch_norm, recipe.run.compare) == (BUNDLED, True, BUNDLED)
    spec = load_spec(DEFAULT_MODEL)
    assert recipe.run.input_sizes == (spec.net_side,), "as large as the bundled network was trained on"
    assert (recipe.data.side, recipe.data.margin, recipe.data.color) == (spec.side, spec.margin, spec.color)


@pytest.mark.parametrize("name", [None, "own", "own-cpu"])
@pytest.mark.parametrize(
    "changes", [{"model.weights": ""}, {"model.weights": "face.pt"}, {"model.backbone": "resnet14"}]
)
def test_another_start_gets_batch_norm_and_larger_steps(name: str | None, changes: dict[str, str]) -> None:
    recipe, notes = choose(name, changes, "cpu")
    assert recipe.model.weights == changes.get("model.weights", "")
    assert not recipe.model.fold_batch_norm
    usual = load_recipe("own-cpu").optim
    assert recipe.optim.lr > usual.lr
    assert recipe.optim.head_lr < usual.head_lr
    assert any("resnet14 cannot start from it" in note for note in notes) == ("model.backbone" in changes)
    assert choose(name, {**changes, "optim.lr": "0.25"}, "cpu")[0].optim.lr == 0.25


def test_other_recipes_are_left_as_they_are() -> None:
    assert choose("study", {"model.weights": "face.pt"}, "cpu") == (
        load_recipe("study", {"model.weights": "face.pt"}), [],
    )  # fmt: skip
    assert set(DEFAULT_RECIPES) == {"cpu", "cuda"}
