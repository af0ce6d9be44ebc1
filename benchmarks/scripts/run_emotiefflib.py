"""EmotiEffLib with ONNX Runtime. Its tutorial finds faces with MTCNN; here MediaPipe does, which is quicker.

Without a connection to GitHub its weights cannot be had; then a network of the same shape with random weights runs.
"""

from pathlib import Path

import cv2
from mediapipe_faces import MediaPipeFaces
from peer import cut, run

MODEL = "enet_b0_8_best_vgaf"  # the default


class EmotiEffLib:
    """``EmotiEffLibRecognizer(engine="onnx").predict_emotions`` with all faces of a frame in one call."""

    def __init__(self, options):
        from emotiefflib.facial_analysis import EmotiEffLibRecognizer

        if options["random"]:
            from random_networks import efficientnet_b0

            folder = Path.home() / ".emotiefflib"
            folder.mkdir(exist_ok=True)
            efficientnet_b0(str(folder / f"{MODEL}.onnx"))
        self.recognizer = EmotiEffLibRecognizer(engine="onnx", model_name=MODEL)
        self.detector = MediaPipeFaces(options["detector"])

    def frame(self, picture):
        boxes, _ = self.detector.find(picture)
        return self.faces(picture, boxes, None) if boxes else []

    def faces(self, picture, boxes, keypoints):
        crops = [cv2.cvtColor(cut(picture, box), cv2.COLOR_BGR2RGB) for box in boxes]
        _, scores = self.recognizer.predict_emotions(crops, logits=False)
        names = self.recognizer.idx_to_emotion_class
        return [{names[i]: float(score) for i, score in enumerate(row)} for row in scores]


run(EmotiEffLib)
