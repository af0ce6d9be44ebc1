"""online-emotion-detection with ONNX Runtime; it wants boxes, which MediaPipe finds.

Without a connection to GitHub its weights cannot be had; then a network of the same shape with random weights runs.
"""

from pathlib import Path

import numpy as np
from mediapipe_faces import MediaPipeFaces
from online_emotion import EmotionRecognizer
from peer import run


class Online:
    """``EmotionRecognizer("hsemotion").predict_on_boxes(frame, boxes)``."""

    def __init__(self, options):
        weights = None
        if options["random"]:
            from random_networks import efficientnet_b0

            weights = str(Path.home() / "random.onnx")
            efficientnet_b0(weights)
        self.recognizer = EmotionRecognizer("hsemotion", weights=weights, runtime="onnx", device="cpu", batch_max=16)
        self.detector = MediaPipeFaces(options["detector"])

    def frame(self, picture):
        boxes, _ = self.detector.find(picture)
        return self.faces(picture, boxes, None) if boxes else []

    def faces(self, picture, boxes, keypoints):
        result = self.recognizer.predict_on_boxes(picture, np.asarray(boxes, np.float32))
        names = self.recognizer.classes
        return [dict(zip(names, face.probs.tolist(), strict=True)) for face in result.emotions]


run(Online)
