"""README and docs name only options, files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
HISTORY = {"LOG.md"}  # uses the old names of options
OTHERS = {
    "--help",
    "--strict",
    "--index-url",
    "--nproc-per-node",
    "--install-completion",
    "--minutes",
    "--seconds",
    "--counts",
    "--head",
    "--light",
}


def known() -> set[str]:
    """All options of all commands, except hidden ones."""
    from benchmarks.commands import app as benchmarks
    from experiments.commands import app as experiments
    from leaf_rt.cli.commands import app
    from leaf_rt.cli.maintenance import app as maintenance

    found: set[str] = set()
    groups = [typer.main.get_command(each) for each in (app, maintenance, experiments, benchmarks)]
    while groups:
        command = groups.pop()
        groups += list(getattr(command, "commands", {}).values())
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_options_in_the_docs_exist() -> None:
    options = known() | OTHERS
    wrong = {
        (page.name, option)
        for page in PAGES
        if page.name not in HISTORY
        for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*[a-z\d]", page.read_text(encoding="utf-8"))
        if option not in options
    }
    assert wrong == set()


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_no_hint_installs_from_an_index() -> None:
    files = [p for folder in ("leaf_rt", "train", "engines", "examples") for p in (ROOT / folder).rglob("*.py")]
    hint = re.compile(r"pip install ['\"]?leaf[-_]rt")
    assert [p.name for p in [*files, *PAGES] if p.name not in HISTORY and hint.search(p.read_text("utf-8"))] == []
