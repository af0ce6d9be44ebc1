"""erml."""

from erml import EmotionDetector
from peer import cut, run


class Erml:
    """``EmotionDetector().analyze(frame)``."""

    def __init__(self, options):
        self.detector = EmotionDetector()

    def frame(self, picture):
        return [face.all for face in self.detector.analyze(picture)]

    def faces(self, picture, boxes, keypoints):
        found = [self.detector.analyze(cut(picture, box)) for box in boxes]  # it takes no boxes
        return [faces[0].all if faces else {} for faces in found]


run(Erml)
