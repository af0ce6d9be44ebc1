"""The published methods as values of the section "method".

Knows names and numbers. It must not know tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.recipes.schema import LEVELS, OPTIONS

_OFF = {"levels": (), "lambda_s": 0.0, "balance": 0.01, "unsupervised": "hard"}
PRESETS: dict[str, dict[str, Any]] = {
    "supervised": {**_OFF, "lambda_x": 1.0, "lambda_u": 0.0, "weak_views": 0, "threshold": "fixed"},
    # Sohn et al., 2020, arXiv 2001.07685
    "fixmatch": {
        **_OFF, "lambda_x": 1.0, "weak_views": 1, "teacher": "student", "threshold": "fixed", "p_cutoff": 0.95,
    },
    # Wang et al., 2023, arXiv 2205.07246
    "freematch": {
        **_OFF, "lambda_x": 1.0, "weak_views": 1, "teacher": "student", "threshold": "adaptive", "fairness": 0.01,
    },
    # Li et al., CVPR 2022, arXiv 2203.12341
    "adacm": {**_OFF, "teacher": "student", "threshold": "class", "lambda_s": 0.1},
    "leaf-paper": {"levels": LEVELS},
    "leaf-official": {
        "levels": LEVELS, "teacher": "student-grad", "unsupervised": "scalar", "rescale": "plain", "k": 1,
        "shared": True, "combine": "log", "balance": 0.0, "instance_on": "features", "unit_features": True,
    },
}  # fmt: skip


def preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The preset of the method that is named in "section.key" values; empty for an unknown method."""
    name = values.get("method.name", OPTIONS["method.name"].default)
    mode = values.get("method.mode", OPTIONS["method.mode"].default)
    return PRESETS.get(f"leaf-{mode}" if name == "leaf" else name, {})
