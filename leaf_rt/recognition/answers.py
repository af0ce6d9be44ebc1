"""From what a network answers to shares that hold: what is no face, how good the picture is, and the calibration.

Knows predictions and calibrations. Does not know pictures or tracks.
"""

from __future__ import annotations

import numpy as np

from leaf_rt.models.calibration import Calibration, Prior
from leaf_rt.models.quality import load_weights
from leaf_rt.models.spec import ModelSpec
from leaf_rt.types import F32, Prediction


class Answers:
    """Judges the predictions of one model.

    Args:
        spec: The model.
        prior: How frequent the classes are taken to be; see ``Calibration.shares``.

    Raises:
        ModelError: The calibration of the model is damaged, or it does not know the prior that is asked for.
    """

    def __init__(self, spec: ModelSpec, prior: Prior = "natural") -> None:
        load_weights()  # here, because ``Pipeline.step`` opens no file
        self.calibration, self.prior = Calibration.of(spec), prior
        if prior == "balanced":
            self.calibration.known_prior()  # fail before the first answer

    def judge(self, prediction: Prediction, quality: F32, evidence: F32 | None = None) -> tuple[F32, F32]:
        """Calibrate predictions.

        Args:
            prediction: Of N faces.
            quality: (N,) float32, quality of their pictures.
            evidence: (N,) float32, see ``Calibration.evidence``. None takes all of them for faces.

        Returns:
            Shares (N, C) float32; and the quality, (N,) float32, which is 0 where there is no face.
        """
        if evidence is not None:
            quality = np.where(evidence > 0, quality, np.float32(0.0))
        return self.calibration.shares(prediction.probs, quality, self.prior), quality
