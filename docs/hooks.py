"""Fills the generated parts of the documentation from the code, so that they cannot go stale.

`<!-- commands -->` becomes the options of every command, `<!-- recipe -->` the table of recipe options. Links from
docs/ to files outside of it, such as the model card, become plain text in the site.
"""

from __future__ import annotations

import re
from typing import Any

import typer

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of one page."""
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", _commands())
    if "<!-- recipe -->" in markdown:
        from train.recipes.schema import options_markdown

        markdown = markdown.replace("<!-- recipe -->", options_markdown())
    return _OUTSIDE.sub(r"\1", markdown)


def _commands() -> str:
    from leaf_rt.cli.commands import app

    root: Any = typer.main.get_command(app)
    parts: list[str] = []
    for name, command in root.commands.items():
        if not command.hidden:
            parts += [f"## leaf-rt {name}", "", _text(command.help or ""), "", *_options(command), ""]
    return "\n".join(parts)


def _options(command: Any) -> list[str]:
    rows = ["| Option | Meaning | Default |", "|---|---|---|"]
    recipe = any("." in name for parameter in command.params for name in parameter.opts)
    for parameter in command.params:
        if "." in "".join(parameter.opts):  # the page of recipe options lists these
            continue
        if parameter.param_type_name == "option" and not parameter.hidden:
            names = ", ".join(f"`{n}`" for n in [*parameter.opts, *parameter.secondary_opts])
            plain = isinstance(parameter.default, str | int | float) and not isinstance(parameter.default, bool)
            default = f"`{parameter.default}`" if plain and str(parameter.default) else ""
            rows.append(f"| {names} | {_text(parameter.help or '')} | {default} |")
    if recipe:
        rows += ["", "This command also takes every [option of a recipe](recipe-options.md) as `--section.key`."]
    return rows


def _text(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
