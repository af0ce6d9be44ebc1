"""``POST /v1/image``: recognizes one picture with the back end of the run.

Knows pictures and the pipeline for single images; must not know HTTP.
"""

from __future__ import annotations

import threading
from typing import Any

from leaf_rt.backends.base import Backend
from leaf_rt.errors import CodecError
from leaf_rt.faces.image_detector import ImageFaceDetector
from leaf_rt.media.images import decode_picture, picture_size
from leaf_rt.models.spec import ModelSpec
from leaf_rt.recognition.config import RecognitionConfig
from leaf_rt.recognition.images import recognize_image
from leaf_rt.results.records import frame_records
from leaf_rt.types import U8, Frame, Prediction, SourceInfo
from leaf_rt.web.manager import SourceManager


class PictureRecognizer:
    """Recognizes pictures, one at a time. Loads its detector at the first one.

    Args:
        recognition: How to recognize.
        backend: The back end of the run. Only the thread of the run calls it.
        manager: Knows that thread.
        max_pixels: Largest picture.
    """

    def __init__(
        self, recognition: RecognitionConfig, backend: Backend, manager: SourceManager, max_pixels: int
    ) -> None:
        self._recognition, self._backend, self._max_pixels = recognition, _Borrowed(backend, manager), max_pixels
        self._lock = threading.Lock()
        self._detector: ImageFaceDetector | None = None

    def recognize(self, data: bytes, name: str) -> dict[str, Any]:
        """Recognize a picture; takes up to seconds.

        Args:
            data: The content of a picture file.
            name: Name of the source in the records.

        Returns:
            ``width``, ``height`` and ``records``, ready for JSON.

        Raises:
            NotAVideo, CodecError: It is not a picture that can be decoded, or too large.
        """
        width, height, _ = picture_size(data, name)
        if width * height > self._max_pixels:
            raise CodecError(f"a picture of {width}x{height} px is too large; send at most {self._max_pixels} px")
        image = decode_picture(data, name)
        config = self._recognition
        with self._lock:
            if self._detector is None:
                self._detector = ImageFaceDetector(config.range, detector=config.detector)
            estimates = recognize_image(
                image,
                self._detector,
                self._backend,
                max_faces=config.pipeline.max_faces,
                uncertain_below=config.uncertain_below,
                pose=config.pose,
                landmarker=config.open_landmarker(),
                prior=config.prior,
            )
        height, width = image.shape[:2]
        info = SourceInfo(name, name, "picture", width, height)
        records = frame_records(info, Frame(image, 0, 0.0, name), estimates, self._backend.spec.labels, 0.0)
        return {"width": width, "height": height, "records": records}

    def close(self) -> None:
        """Free the detector."""
        with self._lock:
            if self._detector is not None:
                self._detector.close()
                self._detector = None


class _Borrowed:
    """The back end of a run for another thread: a back end is not thread-safe, so the run's thread calls it."""

    def __init__(self, backend: Backend, manager: SourceManager) -> None:
        self._backend, self._manager = backend, manager
        self.name, self.device, self.reason = backend.name, backend.device, backend.reason
        self.spec: ModelSpec = backend.spec
        self.cropper = backend.cropper

    def infer(self, faces: U8) -> Prediction:
        return self._manager.call_and_wait(lambda: self._backend.infer(faces))

    def close(self) -> None:
        """The run closes it."""
