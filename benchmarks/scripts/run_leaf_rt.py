"""leaf-rt through its public API; the recognizer alone through the parts that the API uses."""

import numpy as np
from peer import run

import leaf_rt
from leaf_rt.backends.opening import open_backend
from leaf_rt.faces.alignment import crop_faces, crop_plain
from leaf_rt.models.spec import DEFAULT_MODEL


class LeafRt:
    """``Recognizer().stream(clip)``."""

    def __init__(self, options):
        self.recognizer = leaf_rt.Recognizer(**options)
        self.backend = None

    def clip(self, path):
        for frame in self.recognizer.stream(path):
            yield len(frame.faces)

    def faces(self, picture, boxes, keypoints):
        if self.backend is None:
            self.backend = open_backend(DEFAULT_MODEL)
        spec = self.backend.spec
        crops = [
            crop_plain(picture, spec.side, spec.margin)
            if points is None
            else crop_faces(picture, np.asarray([points], np.float32), spec.side, spec.margin)[0]
            for points in keypoints
        ]
        probs = self.backend.infer(np.stack(crops)).probs
        return [dict(zip(spec.labels, row.tolist(), strict=True)) for row in probs]


run(LeafRt)
