"""facial-emotion-recognition: MTCNN and a small network. Its API draws on the frame and returns no scores."""

import cv2
import torch
from facial_emotion_recognition import EmotionRecognition
from peer import cut, run


class Fer:
    """``EmotionRecognition(device="cpu").recognise_emotion(frame)``."""

    def __init__(self, options):
        load = torch.load
        # Its weights are a pickle, which newer versions of PyTorch refuse by default.
        torch.load = lambda *args, **kwargs: load(*args, **{"weights_only": False, "map_location": "cpu", **kwargs})
        self.recognizer = EmotionRecognition(device="cpu")
        torch.load = load
        self.count = 0
        classify = self.recognizer._predict

        def counted(face):
            self.count += 1
            return classify(face)

        self.recognizer._predict = counted

    def frame(self, picture):
        self.count = 0
        self.recognizer.recognise_emotion(picture, return_type="BGR")
        return [{}] * self.count

    def faces(self, picture, boxes, keypoints):
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return [{self.recognizer._predict(cut(grey, box)): 1.0} for box in boxes]


run(Fer)
