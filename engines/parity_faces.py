"""The face crops that ship with the package; every new engine is compared with its fp32 model on them.

Knows videos and crops; must not know models. Needed only once: ``python -m engines golden CLIP --out FILE``.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from leaf_rt.errors import DataError
from leaf_rt.models.spec import GOLDEN_MARGIN, GOLDEN_ROW, GOLDEN_SIDE
from leaf_rt.system.files import write_whole
from leaf_rt.types import U8
from train.data.cropper import FaceCropper


def make_golden(clip: Path, out: Path, seed: int = 0) -> None:
    """Crop the largest face of frames spread over a video and write all crops as one JPEG mosaic.

    Every second crop is varied in brightness and contrast, and sometimes mirrored.

    Args:
        clip: A video whose faces may be redistributed.
        out: The .jpg file.
        seed: Seed of the variations.

    Raises:
        DataError: The video has a face in too few frames.
        OutputError, NoPermission: See ``leaf_rt.system.files.write_whole``.
    """
    count = GOLDEN_ROW**2
    crops: list[U8] = []
    with av.open(str(clip)) as container, FaceCropper(GOLDEN_SIDE, GOLDEN_MARGIN, "rgb") as cropper:
        for frame in container.decode(video=0):
            crop, found = cropper.crop(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
            if found:
                crops.append(np.ascontiguousarray(crop[..., ::-1]))
    if len(crops) < count:
        raise DataError(f"golden {clip}: only {len(crops)} frames show a face, {count} are needed; give a longer video")
    chosen = np.stack([crops[i] for i in np.linspace(0, len(crops) - 1, count).astype(int)])
    random = np.random.default_rng(seed)
    for i in range(1, count, 2):
        gamma, gain = np.exp(random.uniform(-0.6, 0.6)), random.uniform(0.6, 1.4)
        x = np.clip(255.0 * gain * (chosen[i] / 255.0) ** gamma, 0, 255).astype(np.uint8)
        chosen[i] = x[:, ::-1] if random.random() < 0.5 else x
    rows = chosen.reshape(GOLDEN_ROW, GOLDEN_ROW, GOLDEN_SIDE, GOLDEN_SIDE, 3)
    mosaic = rows.transpose(0, 2, 1, 3, 4).reshape(GOLDEN_ROW * GOLDEN_SIDE, GOLDEN_ROW * GOLDEN_SIDE, 3)
    ok, data = cv2.imencode(".jpg", mosaic, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not ok:
        raise DataError(f"golden {clip}: OpenCV cannot encode the JPEG")
    write_whole(out, lambda f: f.write(data.tobytes()), parents=True)
