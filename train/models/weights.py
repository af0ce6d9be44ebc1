"""State dicts from files: read without running code, and compared with the network that wants them.

Knows torch's files; must not know architectures.
"""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leaf_rt.errors import ModelError, NoPermission

NAMED = 8  # keys that a message lists


class Unreadable(Exception):
    """Why a file cannot be read, in words that end a sentence."""


def read(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU: tensors and plain values.

    Raises:
        NoPermission, ModelError: The system does not read it, whatever it holds.
        Unreadable: It holds something else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as e:
        raise NoPermission(f"{path}: may not be read") from e
    except Exception as e:  # a damaged or foreign file can make the reader raise anything
        if isinstance(e, OSError) and e.errno != errno.EINVAL:  # a file cut short makes torch seek to before its start
            raise ModelError(f"{path}: the system cannot read it ({e.strerror})") from e
        if isinstance(e, pickle.UnpicklingError) and "GLOBAL" in str(e):
            reason = "it holds Python objects, which could run code; save a state dict of tensors alone"
        elif "TorchScript" in str(e):
            reason = "it is a TorchScript archive; save the state dict of its network"
        else:
            reason = "it was cut short, or is no file of torch.save"
        raise Unreadable(reason) from e


def misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], optional: tuple[str, ...] = ()) -> str:
    """Which keys of a state dict do not fit a network, in words; empty where all do.

    Args:
        wanted: The network's own state dict.
        given: The state dict that it should take.
        optional: Ends of names that may be missing.
    """
    missing = sorted(k for k in wanted if k not in given and not k.endswith(optional))
    unexpected = sorted(k for k in given if k not in wanted)
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in given and given[k].shape != v.shape
    ]
    return "; ".join(
        f"{what}: {', '.join(keys[:NAMED])}{f' and {len(keys) - NAMED} more' if len(keys) > NAMED else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    )
