"""Reads files of ``torch.save`` without running code, and compares state dicts.

Knows torch's files; must not know architectures.
"""

from __future__ import annotations

import errno
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leaf_rt.errors import ModelError, NoPermission

MAX_KEYS = 8  # that a message lists


class Unreadable(Exception):
    """A file cannot be read. The message is the reason, without the name of the file."""


def read_file(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU: tensors and plain values.

    Raises:
        NoPermission, ModelError: The operating system cannot read the file.
        Unreadable: The file is damaged, or holds something else.
    """
    try:
        if (member := _damaged_member(path)) is not None:
            raise Unreadable(f"its {member} is damaged (wrong checksum); use another copy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks people to write to PyTorch; the error below says what is wrong
            return torch.load(path, map_location="cpu", weights_only=True)
    except Unreadable:
        raise
    except PermissionError as e:
        raise NoPermission(f"{path}: no permission to read it") from e
    except Exception as e:  # torch raises many kinds of errors for a damaged file
        if isinstance(e, OSError) and e.errno != errno.EINVAL:  # EINVAL: the file is cut short
            raise ModelError(f"{path}: cannot be read ({e.strerror})") from e
        if isinstance(e, pickle.UnpicklingError) and "GLOBAL" in str(e):
            reason = "it holds Python objects, which could run code; save a state dict of tensors only"
        elif "TorchScript" in str(e):
            reason = "it is a TorchScript archive; save the state dict of its network"
        else:
            reason = "it is cut short, or is not a file of torch.save"
        raise Unreadable(reason) from e


def _damaged_member(path: Path) -> str | None:
    """The first part of the archive whose checksum is wrong, which torch does not check; None if all are right."""
    if not zipfile.is_zipfile(path):  # an old format without checksums, or no file of torch.save at all
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], optional: tuple[str, ...] = ()) -> str:
    """Describe the keys of a state dict that do not fit a network; empty if all fit.

    Args:
        expected: State dict of the network.
        given: State dict to load.
        optional: Suffixes of keys that may be missing.
    """
    missing = sorted(k for k in expected if k not in given and not k.endswith(optional))
    unexpected = sorted(k for k in given if k not in expected)
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(v.shape)}"
        for k, v in expected.items()
        if k in given and given[k].shape != v.shape
    ]
    return "; ".join(
        f"{what}: {', '.join(keys[:MAX_KEYS])}{f' and {len(keys) - MAX_KEYS} more' if len(keys) > MAX_KEYS else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    )
