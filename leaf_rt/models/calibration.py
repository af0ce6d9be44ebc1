"""Makes the shares of a model honest: they say how often the answer is right, for clear and for poor pictures.

A share of 0.7 should be right 7 times in 10. The networks learn from clear pictures, so their shares are too low there
and too high for dark or blurred ones. ``python -m engines calibrate`` fits a temperature (Guo et al., 2017, arXiv
1706.04599) that depends on the quality of the picture, and stores it in the description of the model. The leading
class stays the same. Knows shares and descriptions; must not know pictures or runtimes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leaf_rt.errors import ModelError
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import F32

Prior: TypeAlias = Literal["natural", "balanced"]
PRIORS: tuple[Prior, ...] = ("natural", "balanced")
SURE_FACE = 0.78  # confidence of the detector from which a detection is a face
SURE = 0.5  # evidence for a face that is beyond doubt
UNCERTAIN_BELOW = 0.4  # for models that were not calibrated
TEMPERATURES = (0.01, 100.0)  # the smallest and the largest
LARGEST = 100.0  # of the other numbers
SMALLEST = 1e-6  # a smaller share counts as this
_LARGEST_WEIGHT = 1e6  # of a feature in the score of faces


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the answers of a model become shares that hold. The defaults change nothing.

    Attributes:
        temperature: Divides the logarithms of the shares of a clear picture. Below 1 the shares become clearer.
        quality_exponent: The logarithms are also multiplied by the quality to this power.
        uncertain_below: If no class has this share, the answer is "uncertain".
        prior: How frequent each of the C classes was in training; empty if unknown.
        balance: To which power the prior divides the shares for "balanced".
        resting: Mean answer for resting faces, C shares; empty if unknown. For ``leaf_rt.recognition.resting``.
        face: D + 1 numbers: weights of the features in a score that is positive for a face, and what is added to it;
            empty if it is unknown.
        fitted: On what it was fitted, and what was measured there.
    """

    temperature: float = 1.0
    quality_exponent: float = 0.0
    uncertain_below: float = UNCERTAIN_BELOW
    prior: tuple[float, ...] = ()
    balance: float = 1.0
    resting: tuple[float, ...] = ()
    face: tuple[float, ...] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: ModelSpec) -> Calibration:
        """Read that of a model; one that changes nothing if the model has none.

        Raises:
            ModelError: It is damaged.
        """
        raw: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in spec.calibration.items()
        }
        try:
            found = cls(**raw)
            fits = (
                _are_numbers([found.temperature], *TEMPERATURES)
                and _are_numbers([found.quality_exponent, found.uncertain_below, found.balance], 0.0, LARGEST)
                and all(isinstance(part, tuple) for part in (found.prior, found.resting, found.face))
                and all(len(part) in (0, len(spec.labels)) for part in (found.prior, found.resting))
                and _are_numbers([*found.prior, *found.resting], SMALLEST, 1.0)
                and len(found.face) in (0, spec.feature_dim + 1)
                and _are_numbers(found.face, -_LARGEST_WEIGHT, _LARGEST_WEIGHT)
                and isinstance(found.fitted, dict)
            )
            if not fits:
                raise ValueError
        except (TypeError, ValueError) as e:
            raise ModelError(
                "ModelSpec.calibration: is damaged; calibrate the model again, or remove it from its description"
            ) from e
        return found

    def to_dict(self) -> dict[str, Any]:
        """For the description of a model."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def evidence(self, features: F32, confidence: F32) -> F32:
        """Tell faces from clouds, hands and hair that the detector took for faces.

        Such things come with little confidence of the detector, so a face with much is never refused.

        Args:
            features: (N, D) float32, of the network.
            confidence: (N,) float32, of the face detection.

        Returns:
            (N,) float32, at most ``SURE``; above 0 for a face.
        """
        if not self.face or (confidence >= SURE_FACE).all():
            return np.full(len(features), SURE, np.float32)
        weights = np.array(self.face, np.float32)
        score = np.minimum(features @ weights[:-1] + weights[-1], SURE)
        return np.asarray(np.where(confidence >= SURE_FACE, SURE, score), np.float32)

    def shares(self, probs: F32, quality: F32, prior: Prior = "natural") -> F32:
        """Calibrate answers.

        Args:
            probs: (N, C) float32, answers of the network; rows sum to 1.
            quality: (N,) float32, quality of the pictures, 0 to 1. 0 gives all classes the same share.
            prior: "balanced" takes the frequencies of the classes in training out of the shares, as far as that helps
                the rare ones.

        Returns:
            (N, C) float32; rows sum to 1.

        Raises:
            ModelError: ``prior`` is "balanced", and the model does not know its prior.
        """
        trust = np.where(quality > 0, np.power(quality, self.quality_exponent), 0.0) / self.temperature
        logs = np.log(np.maximum(probs, SMALLEST)) * trust[:, None]
        if prior == "balanced":
            logs = logs - self.balance * np.log(self.known_prior()) * (quality > 0)[:, None]
        return normalized(logs)

    def known_prior(self) -> F32:
        """The prior, (C,) float32.

        Raises:
            ModelError: There is none.
        """
        if not self.prior:
            raise ModelError("--prior balanced: this model does not say how frequent its classes were; calibrate it")
        return np.array(self.prior, np.float32)


def _are_numbers(values: Iterable[object], low: float, high: float) -> bool:
    """Whether all values are numbers of JSON within these bounds."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high for value in values
    )


def normalized(logs: F32 | NDArray[np.float64]) -> F32:
    """Shares (N, C) float32 from logarithms of any scale."""
    values = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(values / values.sum(axis=1, keepdims=True), np.float32)
