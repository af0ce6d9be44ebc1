"""Use a model of your own: compare it with the bundled one on a video.

leaf-rt train --data faces --out runs/mine
leaf-rt export runs/mine --out models
python examples/own_model.py models/mine.onnx clip.mp4
"""

import sys

import leaf_rt


def main(model: str, video: str) -> None:
    for name in (None, model):
        with leaf_rt.Recognizer(name) as recognizer:
            result = recognizer.video(video)
            print(f"{name or 'bundled model'}: {', '.join(recognizer.labels)}")
            for person in result.summary["people"]:
                shares = ", ".join(f"{label} {share:.0%}" for label, share in person["shares"].items())
                print(f"  person {person['track_id']}, {person['seconds']:.1f} s: {shares}")


if __name__ == "__main__":
    main(*sys.argv[1:])
