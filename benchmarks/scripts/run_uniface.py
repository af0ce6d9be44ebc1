"""uniface: SCRFD and its emotion network."""

import numpy as np
from peer import run


class Uniface:
    """A detector and ``Emotion().predict(frame, landmarks)``."""

    def __init__(self, options):
        from uniface import SCRFD, Emotion

        self.detector, self.emotion = SCRFD(), Emotion()

    def frame(self, picture):
        return [self.scores(picture, face.landmarks) for face in self.detector.detect(picture)]

    def faces(self, picture, boxes, keypoints):
        return [self.scores(picture, np.asarray(points)) for points in keypoints]

    def scores(self, picture, landmarks):
        result = self.emotion.predict(picture, landmarks)
        return {result.emotion: result.confidence}


run(Uniface)
