"""Makes the archive of a program harmless: keeps what leaf-rt writes into one, and refuses everything else.

``torch.export.load`` would run code from the file: it unpickles parts of the archive, and evaluates the texts of sizes
and guards as Python. Knows zip archives and JSON; must not know PyTorch.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from leaf_rt.system.parsing import parse_json
from leaf_rt.system.reading import read_regular

_MAX_PROGRAM = 2 << 30  # bytes
_WEIGHTS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_FACTS = re.compile(r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)")
_GRAPHS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json", "models/model.json")
_SAMPLES = "data/sample_inputs/model.pt"  # a pickle that nobody needs; empty means that there are none

_PLAIN = re.compile(r"[\w.]*", re.ASCII)
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(_assert_tensor_metadata|[a-z]\w*)\.[A-Za-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|mod|eq|ne|ge|gt|le|lt)",
    re.ASCII,
)
_SIZE = re.compile(
    r"(Symbol\('[su]\d+'(, (positive|nonnegative|integer)=True)*\)|Integer\(-?\d{1,9}\)|Add|Mul|FloorDiv|Mod|[(), ])*",
    re.ASCII,
)
_TREE = re.compile(r'("(type|context|children_spec|builtins\.(tuple|list|dict)|null|\[\])"|null|\d|[\[\]{}:, ])*')
_NOTHING = re.compile("")
_TEXTS = {
    "target": _OPERATOR, "expr_str": _SIZE, "in_spec": _TREE, "out_spec": _TREE, "guards_code": _NOTHING,
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
}  # fmt: skip
# Only these operators may take a text, so none that names a file.
_WITH_TEXT = ("torch.ops.aten.gelu.default", "torch.ops.aten.einsum.default")
_WORDS = re.compile("none|tanh|[a-zA-Z,. >-]{0,100}")


def harmless(path: Path) -> io.BytesIO:
    """Rewrite the archive of a program without anything that could run code.

    Args:
        path: The .pt2 file.

    Returns:
        A new archive for ``torch.export.load``.

    Raises:
        ValueError, zipfile.BadZipFile: It is damaged, or holds more than a program that leaf-rt has written.
        OSError: It cannot be read.
    """
    new = io.BytesIO()
    old = zipfile.ZipFile(io.BytesIO(read_regular(path, _MAX_PROGRAM)))
    with old, zipfile.ZipFile(new, "w", zipfile.ZIP_STORED) as archive:
        seen: set[str] = set()
        for member in old.infolist():
            name = member.filename.partition("/")[2]
            if name in seen or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its archive is not one of PyTorch")
            seen.add(name)
            if name == _SAMPLES:
                data = b""
            elif name in _GRAPHS:
                data = json.dumps(_checked(parse_json(old.read(member)))).encode()
            elif _WEIGHTS.fullmatch(name) or _FACTS.fullmatch(name):
                data = old.read(member)
            else:
                raise ValueError("it holds files that no program of leaf-rt has")
            archive.writestr(f"archive/{name}", data)
    new.seek(0)
    return new


def _checked(value: Any, name: str = "", words: bool = False) -> Any:
    """A value of JSON in which no text can be code; the descriptions of nodes, which nobody needs, are left out.

    Args:
        value: What was read.
        name: Name of its field.
        words: Whether it belongs to an operator that takes a text.
    """
    if isinstance(value, dict):
        if value.get("use_pickle") not in (None, False):
            raise ValueError("it holds pickles, which can run code")
        words = words or value.get("target") in _WITH_TEXT
        return {
            _text(key, _PLAIN): {} if key == "metadata" else _checked(part, key, words) for key, part in value.items()
        }
    if isinstance(value, list):
        return [_checked(part, name, words) for part in value]
    if isinstance(value, str):
        if name == "as_string":
            return _text(value, _WORDS if words else _NOTHING)
        return _text(value, _TEXTS.get(name, _PLAIN))
    return value


def _text(text: str, allowed: re.Pattern[str]) -> str:
    if allowed.fullmatch(text) is None:
        raise ValueError("it holds texts that no program of leaf-rt has, and that could be code")
    return text
