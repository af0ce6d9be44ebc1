"""The methods that the long protocol compares, by name. Knows names and options only."""

from __future__ import annotations

from typing import Any

_LEVELS = ("semantic", "instance", "category")
_LEAF: dict[str, Any] = {"method.name": "leaf", "method.lambda_x": 1.0, "method.lambda_s": 0.0}

BASELINES: dict[str, dict[str, Any]] = {
    "supervised": {"method.name": "supervised"},
    "FixMatch": {"method.name": "fixmatch"},
    "FreeMatch": {"method.name": "freematch"},
    "Ada-CM": {"method.name": "adacm"},
}
LEAF_FORMS: dict[str, dict[str, Any]] = {
    "LEAF at a fifth": {**_LEAF, "method.lambda_u": 0.2},
    "LEAF scalar": {**_LEAF, "method.unsupervised": "scalar"},
    "LEAF share": {**_LEAF, "method.ramp": "share"},
    "LEAF class": {**_LEAF, "method.ramp": "class"},
    "LEAF entropy": {**_LEAF, "method.ramp": "entropy"},
    "LEAF entropy squared": {**_LEAF, "method.ramp": "entropy", "method.ramp_power": 2.0},
}
_CHANGES: dict[str, dict[str, Any]] = {
    "consistency": {"method.lambda_c": 1.0},
    "contrast": {"method.lambda_s": 0.1},
    "little noise": {"method.noise_scale": 0.15},
    "falling noise": {"method.noise_steps": 1000},
}
OTHERS: dict[str, dict[str, Any]] = {
    "LEAF paper": {"method.name": "leaf"},
    **{
        f"{name} with {what}": {**form, **change}
        for name, form in LEAF_FORMS.items()
        for what, change in _CHANGES.items()
    },
    **{
        f"{name} without {level}": {**form, "method.levels": ",".join(other for other in _LEVELS if other != level)}
        for name, form in LEAF_FORMS.items()
        for level in _LEVELS
    },
    **{
        f"{baseline} with {name}": {
            "method.unsupervised": "both",
            **{option: value for option, value in form.items() if option not in _LEAF},
            **BASELINES[baseline],
            "method.levels": ",".join(_LEVELS),
        }
        for name, form in LEAF_FORMS.items()
        for baseline in ("FixMatch", "FreeMatch", "Ada-CM")
    },
}
FORMS = {**BASELINES, **LEAF_FORMS, **OTHERS}
USUAL = (*BASELINES, *LEAF_FORMS)
