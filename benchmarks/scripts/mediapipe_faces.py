"""MediaPipe's face detector, for recognizers that bring none, and for the hand-written loop."""

import cv2
import mediapipe
from mediapipe.tasks.python import vision


class MediaPipeFaces:
    """MediaPipe's Tasks face detector, as its guide for Python shows.

    Args:
        model: A .tflite file of the detector.
    """

    def __init__(self, model):
        options = vision.FaceDetectorOptions(base_options=mediapipe.tasks.BaseOptions(model_asset_path=model))
        self.detector = vision.FaceDetector.create_from_options(options)

    def find(self, picture):
        """Boxes [left, top, right, bottom] and six keypoints each, px, of a BGR picture."""
        height, width = picture.shape[:2]
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        found = self.detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)).detections
        boxes = [face.bounding_box for face in found]
        return (
            [[b.origin_x, b.origin_y, b.origin_x + b.width, b.origin_y + b.height] for b in boxes],
            [[[point.x * width, point.y * height] for point in face.keypoints] for face in found],
        )
