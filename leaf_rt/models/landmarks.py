"""Reads ``face_landmarker.task``, MediaPipe's model of face landmarks, which users get themselves.

Knows the file: a zip archive of two networks and a description of the average face in Protocol Buffers. Must not know
what runs the networks.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leaf_rt.errors import ModelError, NoPermission, NotFound
from leaf_rt.system.reading import read_limited, read_regular

_MAX_BYTES = 64 << 20  # the file of 2023 has 4 MB
_VERTEX = 5  # values per point of the average face: x, y, z, and two for a texture
_LARGEST_SHIFT = 63  # bits, in a whole number of 64
_VARINT, _EIGHT_BYTES, _TEXT, _FOUR_BYTES = 0, 1, 2, 5  # wire types of Protocol Buffers


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkFiles:
    """The parts of the file that are used.

    Attributes:
        landmarks: Network that finds the landmarks, .tflite.
        blendshapes: Network from landmarks to blendshapes, .tflite.
        face: (P, 3) float64, cm, landmarks of an average face: x to the right of the picture, y up, z to the camera.
        weights: (P,) float64, how much a landmark tells of the head pose.
        sha256: Of the whole file.
    """

    landmarks: bytes
    blendshapes: bytes
    face: NDArray[np.float64]
    weights: NDArray[np.float64]
    sha256: str


def read_landmark_files(path: Path) -> LandmarkFiles:
    """Read the file.

    Raises:
        NotFound, NoPermission: It cannot be opened.
        ModelError: It is another file, or damaged.
    """
    try:
        data = read_regular(path, _MAX_BYTES)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = [
                _part(archive, name)
                for name in (
                    "face_landmarks_detector.tflite",
                    "face_blendshapes.tflite",
                    "geometry_pipeline_metadata_landmarks.binarypb",
                )
            ]
        return LandmarkFiles(parts[0], parts[1], *_average_face(parts[2]), hashlib.sha256(data).hexdigest())
    except FileNotFoundError as e:
        raise NotFound(f"--landmarks: there is no file {path}; give MediaPipe's face_landmarker.task") from e
    except IsADirectoryError as e:
        raise unusable(path, "it is a folder") from e
    except PermissionError as e:
        raise NoPermission(f"--landmarks: no permission to read {path}; change its permissions") from e
    except KeyError as e:
        raise unusable(path, f"it has no part {e.args[0]}") from e
    except OSError as e:
        raise unusable(path, f"it {e.strerror or 'cannot be read'}") from e
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, MemoryError,
        ValueError, IndexError,
    ) as e:  # fmt: skip
        raise unusable(path, "it is another file, or damaged") from e


def unusable(path: Path, reason: str) -> ModelError:
    """The error of a file that cannot be used."""
    return ModelError(f"--landmarks: {path} is not MediaPipe's face_landmarker.task: {reason}; get a fresh copy")


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError as e:
        raise KeyError(name) from e
    with archive.open(member) as file:
        return read_limited(file, _MAX_BYTES, name)


def _average_face(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the landmarks of the average face, and their weights.

    After mesh_3d.proto and geometry_pipeline_metadata.proto of MediaPipe.

    Raises:
        ValueError, IndexError: It is something else.
    """
    mesh = next((value for number, value in _fields(data) if number == 1), b"")
    points = np.frombuffer(b"".join(value for number, value in _fields(mesh) if number == 3), "<f4")
    face = points.reshape(-1, _VERTEX)[:, :3].astype(np.float64)
    weights = np.zeros(len(face))
    for number, value in _fields(data):
        if number == 2:
            landmark = dict(_fields(value))
            weights[int.from_bytes(landmark.get(1, b"\0"), "little")] = np.frombuffer(landmark.get(2, b""), "<f4")[0]
    is_solid = np.isfinite(face).all() and np.ptp(face, axis=0).min() > 0  # else no head pose can be fitted to it
    if not (is_solid and np.isfinite(weights).all() and weights.min() >= 0 and np.count_nonzero(weights) >= 4):
        raise ValueError("no average face")
    return face, weights


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of every field of a message of Protocol Buffers; whole numbers as 8 bytes, lowest first."""
    at = 0

    def whole_number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value & (2**64 - 1)
            if shift > _LARGEST_SHIFT:
                raise ValueError("a whole number is too long")

    while at < len(data):
        number, kind = divmod(whole_number(), 8)
        if kind == _VARINT:
            yield number, whole_number().to_bytes(8, "little")
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind)
        if length is None:
            if kind != _TEXT:
                raise ValueError(f"wire type {kind}")
            length = whole_number()
        if at + length > len(data):
            raise IndexError("a field ends after the message")
        yield number, data[at : at + length]
        at += length
