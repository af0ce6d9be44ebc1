"""Make the stored crops on which every new engine is compared with its fp32 model; they travel with the models.

Knows clips and crops; must not know models. Run it once: ``python -m engines golden CLIP --out FILE``.
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
    """Cut the largest face of frames spread over a clip, vary light, contrast and side, and lay them in one JPEG.

    Args:
        clip: A video of faces that may be passed on.
        out: The .jpg.
        seed: Of the variations; every second crop stays as it is.

    Raises:
        DataError: The clip shows too few faces.
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
        raise DataError(f"golden {clip}: a face in {len(crops)} frames, {count} are needed; give a longer clip")
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
        raise DataError(f"golden {clip}: OpenCV cannot encode the picture")
    write_whole(out, lambda f: f.write(data.tobytes()), parents=True)
