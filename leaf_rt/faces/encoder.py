"""Describes faces by a face-recognition network that the user gives. No such network is bundled.

The only module that knows this network's format: ONNX, input (N, 3, 112, 112) float32 RGB in [-1, 1], aligned to the
ArcFace template, output (N, D). Does not know tracks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leaf_rt.errors import ModelError, NotFound
from leaf_rt.faces.alignment import MOUTH, similarity
from leaf_rt.types import F32, U8

SIDE = 112  # px
# Right eye, left eye, nose tip and middle of the mouth in a crop, px. Source: insightface, the template of ArcFace.
TEMPLATE: F32 = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [56.14, 92.28]], np.float32)


class FaceEncoder:
    """Turns faces into unit vectors, which are near each other for the same person.

    Args:
        path: ONNX file.

    Raises:
        NotFound: There is no such file.
        ModelError: The file is no network of this format.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        if not path.is_file():
            raise NotFound(f"--reid-model: {path} is no file; give the ONNX file of a face-recognition network")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            (entry,) = self._session.get_inputs()
            self._input = str(entry.name)
            vectors = self._run(np.zeros((1, 3, SIDE, SIDE), np.float32))
        except Exception as e:  # onnxruntime raises many kinds of errors
            raise ModelError(
                f"--reid-model: {path} is no face-recognition network with input (N, 3, 112, 112) float32 "
                f"({str(e).splitlines()[0] if str(e) else type(e).__name__})"
            ) from e
        if vectors.ndim != 2 or vectors.shape[1] < 16:
            raise ModelError(f"--reid-model: {path}: wanted an output (N, D) with D >= 16, got {vectors.shape}")
        self._length = vectors.shape[1]

    def encode(self, image: U8, keypoints: F32) -> F32:
        """Describe faces.

        Args:
            image: (H, W, 3) uint8 BGR.
            keypoints: (N, 6, 2) float32, px.

        Returns:
            (N, D) float32, unit vectors.

        Raises:
            ModelError: The network answers nonsense.
        """
        matrices = similarity(np.ascontiguousarray(keypoints[:, : MOUTH + 1]), TEMPLATE)
        vectors = []
        for matrix in matrices:  # one by one: some files allow no larger batch
            crop = np.zeros((SIDE, SIDE, 3), np.uint8)
            if np.isfinite(matrix).all():
                shrunk = float(np.hypot(matrix[0, 0], matrix[1, 0])) < 0.5
                cv2.warpAffine(image, matrix.astype(np.float64), (SIDE, SIDE), dst=crop,
                               flags=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
            planes = np.ascontiguousarray(crop[None, :, :, ::-1].transpose(0, 3, 1, 2), np.float32)
            vectors.append(self._run(planes / 127.5 - 1.0)[0])
        found = np.array(vectors, np.float32).reshape(len(matrices), self._length)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float32)

    def _run(self, planes: F32) -> F32:
        vectors = np.asarray(self._session.run(None, {self._input: planes})[0], np.float32)
        if not np.isfinite(vectors).all():
            raise ModelError("--reid-model: the network answered with numbers that are not finite; use another one")
        return vectors
