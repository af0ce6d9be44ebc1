"""The loop that a good engineer writes in an afternoon, with the bundled network of leaf-rt.

PyAV decodes, MediaPipe finds the faces, OpenCV aligns them, ONNX Runtime classifies all faces of a frame in one batch.
No tracks, no smoothing, no threads of its own.
"""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime
from mediapipe_faces import MediaPipeFaces
from peer import run

PLACES = np.array([[0.324, 0.388], [0.676, 0.388], [0.5, 0.772]])  # eyes and mouth in a crop; see the model card
RIGHT_EYE, LEFT_EYE, MOUTH = 0, 1, 3


class HandWritten:
    """Options: "network" and "detector", two model files."""

    def __init__(self, options):
        self.detector = MediaPipeFaces(options["detector"])
        self.session = onnxruntime.InferenceSession(options["network"], providers=["CPUExecutionProvider"])
        spec = json.loads(Path(options["network"]).with_suffix(".json").read_text(encoding="utf-8"))
        self.labels, self.side = spec["labels"], spec["side"]
        self.places = (((PLACES - 0.5) / (1 + 2 * spec["margin"]) + 0.5) * self.side).astype(np.float32)

    def clip(self, path):
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                picture = frame.to_ndarray(format="bgr24")
                boxes, keypoints = self.detector.find(picture)
                if boxes:
                    self.faces(picture, boxes, keypoints)
                yield len(boxes)

    def faces(self, picture, boxes, keypoints):
        crops = []
        for points in keypoints:
            from_points = np.array([points[RIGHT_EYE], points[LEFT_EYE], points[MOUTH]], np.float32)
            matrix, _ = cv2.estimateAffinePartial2D(from_points, self.places)
            crops.append(cv2.warpAffine(picture, matrix, (self.side, self.side), borderMode=cv2.BORDER_REPLICATE))
        probs = self.session.run(["probs"], {"faces": np.stack(crops)})[0]
        return [dict(zip(self.labels, row.tolist(), strict=True)) for row in probs]


run(HandWritten)
