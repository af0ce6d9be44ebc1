"""Print the expression of everybody in front of the camera, until Ctrl-C.

python examples/webcam.py [CAMERA]      CAMERA is a number, a device or a file; 0 by default.
"""

import contextlib
import sys

import leaf_rt


def main(camera: str = "0") -> None:
    shown: dict[int, str] = {}
    with leaf_rt.Recognizer() as recognizer:
        for frame in recognizer.stream(camera, mirror=True):
            for face in frame.faces:
                if shown.get(face.track_id) != face.emotion:
                    shown[face.track_id] = face.emotion
                    share = "" if face.emotion == "uncertain" else f" {face.smoothed[face.emotion]:.0%}"
                    print(f"{frame.time:7.2f} s  person {face.track_id}: {face.emotion}{share}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
