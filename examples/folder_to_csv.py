"""Write the expressions in all pictures of a folder to a CSV file, a line per face.

python examples/folder_to_csv.py FOLDER faces.csv
"""

import csv
import sys
from pathlib import Path

import leaf_rt

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def main(folder: str, target: str) -> None:
    with leaf_rt.Recognizer() as recognizer, Path(target).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["picture", "face", "x0", "y0", "x1", "y1", "emotion", *recognizer.labels])
        for path in sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in PICTURES):
            try:
                faces = recognizer.image(path)
            except leaf_rt.LeafError as error:  # a damaged file; go on with the others
                print(f"left out: {error}", file=sys.stderr)
                continue
            for face in faces:
                box = [round(value, 1) for value in face.xyxy]
                shares = [f"{share:.4f}" for share in face.probs.values()]
                table.writerow([path.name, face.track_id, *box, face.emotion, *shares])
            print(f"{path.name}: {len(faces)} faces")


if __name__ == "__main__":
    main(*sys.argv[1:])
