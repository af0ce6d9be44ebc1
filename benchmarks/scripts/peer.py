"""What the scripts of all Python peers share. Runs inside a peer's environment, so it imports nothing of leaf-rt.

A script gives ``run`` a function that loads the peer. What it returns has

- ``frame(picture)``: one dict of label to score per face that the peer finds in a picture, as its README shows;
- ``faces(picture, boxes, keypoints)``: one dict for each given box, by the peer's recognizer alone; ``boxes`` are
  [left, top, right, bottom] in px, ``keypoints`` six [x, y] each, or None where no face was found;
- optionally ``clip(path)``: yields the number of faces of each frame of a video. Without it, OpenCV reads the video
  and ``frame`` gets one frame after the other.

Pictures are (H, W, 3) uint8 arrays in the order B, G, R.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def run(load):
    """Do the job that the command line names, and write its result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    recognizer = load(job["options"])
    do = {"clip": run_clip, "pictures": run_pictures}[job["task"]]
    Path(job["result"]).write_text(json.dumps(do(recognizer, job)), encoding="utf-8")


def run_clip(recognizer, job):
    """Process a clip end to end, then measure the recognizer alone on the given boxes.

    ``wall_s`` and ``cpu_s`` are the time of all frames but the first.
    """
    frames = faces = 0
    first = None
    begin = cpu = 0.0
    clip = (recognizer.clip if hasattr(recognizer, "clip") else lambda path: each_frame(recognizer, path))(job["clip"])
    for found in clip:
        now = time.monotonic()
        frames += 1
        faces += found
        if first is None and found:
            first = now - job["started"]
        if frames == 1:  # the first frame may still load things: it counts for the first result only
            begin, cpu = now, time.process_time()
        if now - begin >= job["seconds"]:
            break
    if frames == 0:
        raise RuntimeError(f"{job['clip']}: no frame was read")
    wall, cpu, memory = now - begin, time.process_time() - cpu, peak_memory()
    clip.close()
    alone, alone_faces = run_boxes(recognizer, job["clip"], job["boxes"])
    return {
        "frames": frames, "faces": faces, "wall_s": wall, "cpu_s": cpu, "first_s": first, "peak_mb": memory,
        "alone_s": alone, "alone_faces": alone_faces,
    }  # fmt: skip


def each_frame(recognizer, path):
    """Yield the number of faces that the peer finds in each frame."""
    import cv2

    video = cv2.VideoCapture(path)
    while True:
        good, picture = video.read()
        if not good:
            return
        yield len(recognizer.frame(picture))


def run_boxes(recognizer, path, boxes):
    """Seconds and faces of the recognizer alone. ``boxes``: frame number to boxes and keypoints."""
    import cv2

    seconds = count = 0
    video = cv2.VideoCapture(path)
    todo = dict.fromkeys(boxes)
    for index in range(1 + max(map(int, boxes), default=-1)):
        good, picture = video.read()
        if not good:
            break
        if str(index) not in todo:
            continue
        rows = boxes[str(index)]
        if count == 0:
            recognizer.faces(picture, rows["boxes"], rows["keypoints"])  # the first call may set things up
        begin = time.perf_counter()
        recognizer.faces(picture, rows["boxes"], rows["keypoints"])
        seconds += time.perf_counter() - begin
        count += len(rows["boxes"])
    return seconds, count


def run_pictures(recognizer, job):
    """Classify one face per picture, once for each of its boxes; give the scores and the time per face."""
    import cv2

    scores = []
    seconds = count = 0
    for picture in job["pictures"]:
        image = cv2.imread(picture["file"])
        answers = []
        for box in picture["boxes"]:
            begin = time.perf_counter()
            (answer,) = recognizer.faces(image, [box], [picture["keypoints"]]) or ({},)
            seconds += time.perf_counter() - begin
            count += 1
            answers.append({name: float(score) for name, score in answer.items()})
        scores.append(answers)
    return {"scores": scores, "ms_per_face": 1e3 * seconds / max(count, 1), "peak_mb": peak_memory()}


def cut(picture, box):
    """The part of a picture inside a box."""
    left, top, right, bottom = (round(v) for v in box)
    height, width = picture.shape[:2]
    left, top = max(0, min(left, width - 2)), max(0, min(top, height - 2))
    return picture[top : max(bottom, top + 2), left : max(right, left + 2)]


def peak_memory():
    """Largest resident memory of this process so far, MB. ru_maxrss would count that of its parent, too."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status names no VmHWM")
