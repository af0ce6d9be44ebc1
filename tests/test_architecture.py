"""The rooms of the code: imports go down only, only public modules are used by other rooms, and no import is circular.

Imports inside functions count; those under ``TYPE_CHECKING`` do not, because they never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("leaf_rt", "train", "engines")

# From the top down. A room may import from the floors below it, never from its own floor or from above.
# A room is a package, or a module directly in leaf_rt/ or train/. CONTRIBUTING.md shows the same table.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("leaf_rt.__main__", "train.__main__", "engines.__main__"),
    ("leaf_rt.cli",),
    ("leaf_rt.recognizer", "train.entry", "train.running", "engines"),
    ("leaf_rt.batch", "leaf_rt.diagnostics", "leaf_rt.web", "train.reports", "train.results"),
    ("leaf_rt.stream", "train.loop"),
    ("leaf_rt.recognition", "leaf_rt.alerts", "leaf_rt.sinks", "leaf_rt.sources", "train.data"),
    ("leaf_rt.faces", "leaf_rt.backends", "leaf_rt.media", "leaf_rt.render", "train.models", "train.methods",
     "train.augment"),
    ("leaf_rt.results", "leaf_rt.models", "train.recipes", "train.metrics"),
    ("leaf_rt.system",),
    ("leaf_rt.credentials", "leaf_rt.types", "leaf_rt.labels", "leaf_rt.geometry", "leaf_rt.errors", "leaf_rt.text"),
)  # fmt: skip
# Rooms of one floor of which the first may know the second: errors print text safely; a method balances the experts of
# a model; training is made of the parts of a run; the face detector runs its networks in the runtimes of the back ends.
NEIGHBOURS = {
    ("leaf_rt.errors", "leaf_rt.text"),
    ("train.methods", "train.models"),
    ("train.entry", "train.running"),
    ("leaf_rt.faces", "leaf_rt.backends"),
}
LEVEL = {room: len(FLOORS) - n for n, row in enumerate(FLOORS) for room in row}
MAX_TOP_LEVEL = 6  # modules directly in leaf_rt/ or train/


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def room_of(module: str) -> str:
    """The room of a module: "engines", "leaf_rt.stream", "train.recipes" ..., or the package itself."""
    parts = module.split(".")
    return parts[0] if parts[0] == "engines" and parts[1:] != ["__main__"] else ".".join(parts[:2])


def imports(module: str) -> Iterator[str]:
    """Every module of this project that a module imports, at its top or inside a function."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the direction"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in FILES else str(node.module) for name in full]
        else:
            continue
        yield from (name for name in found if name.partition(".")[0] in PACKAGES)


GRAPH = {module: set(imports(module)) for module in FILES}


def public_modules(room: str) -> set[str]:
    """The modules that a room's ``__init__`` lists in ``__all__``; for a room that is one module, that module."""
    path = FILES[room]
    if path.name != "__init__.py":
        return {room}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return {room, *(f"{room}.{name}" for name in ast.literal_eval(node.value))}
    return {room}


@pytest.mark.parametrize("module", [m for m in FILES if m not in PACKAGES])
def test_imports_go_down(module: str) -> None:
    own = room_of(module)
    assert own in LEVEL, f"{own} has no floor; give it one in FLOORS"
    wrong = {
        target
        for target in GRAPH[module]
        if room_of(target) != own
        and target not in PACKAGES
        and LEVEL[room_of(target)] >= LEVEL[own]
        and (own, room_of(target)) not in NEIGHBOURS
    }
    assert wrong == set()


@pytest.mark.parametrize("module", list(FILES))
def test_rooms_are_used_through_their_public_modules(module: str) -> None:
    others = {target for target in GRAPH[module] if room_of(target) != room_of(module)}
    assert {target for target in others if target not in public_modules(room_of(target))} == set()


def test_no_circular_imports() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circular import: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in done:
            for target in sorted(GRAPH[module] - {module}):
                visit(target, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


@pytest.mark.parametrize("package", ["leaf_rt", "train"])
def test_few_modules_are_outside_of_packages(package: str) -> None:
    top_level = {p.stem for p in (ROOT / package).glob("*.py")} - {"__init__", "__main__"}
    assert len(top_level) <= MAX_TOP_LEVEL, sorted(top_level)


@pytest.mark.parametrize("room", sorted({room_of(m) for m in FILES if FILES[m].name == "__init__.py"}))
def test_a_room_has_a_short_docstring(room: str) -> None:
    docstring = ast.get_docstring(ast.parse(FILES[room].read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring.splitlines()) <= 5
