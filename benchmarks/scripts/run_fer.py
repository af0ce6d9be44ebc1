"""fer, with its Haar cascade (option "mtcnn": false) or with MTCNN."""

from pathlib import Path

from peer import run


class Fer:
    """``FER().detect_emotions``, as the README shows."""

    def __init__(self, options):
        if options["mtcnn"]:
            import facenet_pytorch  # noqa: F401 - after TensorFlow, the LLVM of its PyTorch ends the process

        import fer
        from fer.fer import FER

        # OpenCV 5 has no cascade files any more; fer brings the same file.
        cascade = Path(fer.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self.detector = FER(cascade_file=str(cascade), mtcnn=options["mtcnn"])

    def frame(self, picture):
        return [face["emotions"] for face in self.detector.detect_emotions(picture)]

    def faces(self, picture, boxes, keypoints):
        rectangles = [[round(x0), round(y0), round(x1 - x0), round(y1 - y0)] for x0, y0, x1, y1 in boxes]
        return [face["emotions"] for face in self.detector.detect_emotions(picture, face_rectangles=rectangles)]


run(Fer)
