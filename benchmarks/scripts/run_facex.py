"""facex, with its Haar cascade."""

import cv2
from facex.core import PoolManager
from peer import cut, run


class Facex:
    """``PoolManager().predict``; one classifier, because one stream is measured."""

    def __init__(self, options):
        self.pool = PoolManager(pool_size=1)
        self.classifier = self.pool.pool[0]

    def frame(self, picture):
        return [face["emot"] for face in self.pool.predict(picture)]

    def faces(self, picture, boxes, keypoints):
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return [self.classifier.detect_emotion(cut(grey, box)) for box in boxes]


run(Facex)
