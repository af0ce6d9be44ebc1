"""rmn, the residual masking network."""

from peer import cut, run
from rmn import RMN


class Rmn:
    """``RMN().detect_emotion_for_single_frame(frame)``."""

    def __init__(self, options):
        self.recognizer = RMN()

    def frame(self, picture):
        return [face["proba_list"] for face in self.recognizer.detect_emotion_for_single_frame(picture)]

    def faces(self, picture, boxes, keypoints):
        answers = [self.recognizer.detect_emotion_for_single_face_image(cut(picture, box)) for box in boxes]
        return [{name: p for part in answer[2] for name, p in part.items()} for answer in answers]


run(Rmn)
