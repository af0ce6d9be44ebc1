"""py-feat."""

from peer import cut, run


class PyFeat:
    """``Detector().detect(frame)``."""

    def __init__(self, options):
        from feat import Detector

        self.detector = Detector(device="cpu")

    def frame(self, picture):
        import torch

        rgb = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None]
        emotions = self.detector.detect(rgb, data_type="tensor", progress_bar=False).emotions
        return emotions.dropna().to_dict("records")

    def faces(self, picture, boxes, keypoints):
        found = [self.frame(cut(picture, box)) for box in boxes]  # it takes no boxes
        return [faces[0] if faces else {} for faces in found]


run(PyFeat)
