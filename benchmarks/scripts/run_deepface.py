"""deepface: ``DeepFace.analyze`` for the action "emotion", with OpenCV's Haar cascade, its default.

Without a connection to GitHub its weights cannot be had; then a network of the same shape with random weights runs.
"""

from pathlib import Path

from peer import cut, run


class Deepface:
    """``DeepFace.analyze(frame, actions=["emotion"])`` in a loop."""

    def __init__(self, options):
        if options["random"]:
            from random_networks import deepface_emotion

            folder = Path.home() / ".deepface" / "weights"
            folder.mkdir(parents=True, exist_ok=True)
            deepface_emotion(str(folder / "facial_expression_model_weights.onnx"))
        from deepface import DeepFace

        self.analyze = DeepFace.analyze

    def frame(self, picture):
        found = self.analyze(picture, actions=["emotion"], enforce_detection=False, silent=True)
        return [face["emotion"] for face in found if face["face_confidence"] > 0]  # 0: the whole frame, no face found

    def faces(self, picture, boxes, keypoints):
        return [
            self.analyze(cut(picture, box), actions=["emotion"], detector_backend="skip", silent=True)[0]["emotion"]
            for box in boxes
        ]


run(Deepface)
