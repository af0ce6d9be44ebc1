"""Hints on how to install leaf-rt: it is installed from a clone, never from the public package index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from leaf_rt.errors import install_hint

ROOT = Path(__file__).parents[1]
FOLDERS = ("leaf_rt", "train", "engines", "examples", "experiments", "docs")
FILES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".toml", ".yml", ".html")
]
FROM_INDEX = re.compile(r"pip install (-\S+ )*['\"]?leaf[-_]rt")


@pytest.mark.parametrize("path", [*FILES, *sorted(ROOT.glob("*.md"))], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_the_public_index(path: Path) -> None:
    assert FROM_INDEX.findall(path.read_text(encoding="utf-8")) == []


def test_the_hint_names_the_extra() -> None:
    assert install_hint("train") == 'install it from a clone of leaf-rt with: pip install ".[train]"'
    assert install_hint() == "install leaf-rt from a clone with: pip install ."


@pytest.mark.parametrize("text", ["pip install leaf-rt", "pip install 'leaf-rt[train]'", 'pip install -U "leaf_rt"'])
def test_the_pattern_finds_hints(text: str) -> None:
    assert FROM_INDEX.search(text)
