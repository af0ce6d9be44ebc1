"""The report: one HTML page per source that holds everything it needs, and asks the network for nothing.

The page shows all numbers without scripts; the scripts add the curves, sorting, copies and downloads. Knows summaries
and numbers. Does not know files other than its own assets.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

from leaf_rt.labels import UNCERTAIN, rgb
from leaf_rt.render.timeline import clock
from leaf_rt.results.summary import Person, Summary
from leaf_rt.text import counted, printable

_MAX_LANES = 30  # people in the timeline; all people have their numbers
_MAX_CARDS = 100
_STATIC_EVENTS = 200  # rows that are in the page even without scripts; the script shows the rest
_HATCHES = 9  # patterns of report.css for print
_SCRIPTS = ("report.js", "charts.js", "tables.js", "controls.js")
_NOT_A_FEELING = "An expression is not a feeling."
_NOTICE = (
    "For lawful uses only: the EU AI Act, Article 5(1)(f), forbids inferring emotions at work and in education, except "
    "for medical or safety reasons."
)


@dataclass(frozen=True, slots=True)
class Clip:
    """The video that the page shows beside the timeline.

    Attributes:
        url: Relative URL, quoted.
        start: Media time of its first picture, s.
    """

    url: str
    start: float = 0.0


def report_html(
    summary: Summary, numbers: Mapping[str, Any], clip: Clip | None = None, notes: Sequence[str] = (),
    thumbnails: Mapping[int, bytes] | None = None,
) -> str:  # fmt: skip
    """Write the page.

    Args:
        summary: The finished summary: curves and events.
        numbers: Its numbers, from ``leaf_rt.results.numbers``.
        clip: The video to show; None shows none.
        notes: Sentences about the data, such as an incomplete last line.
        thumbnails: A JPEG per person, by person.
    """
    people = summary.people()
    names = [*summary.labels, UNCERTAIN]
    data = _data(summary, people, numbers, clip)
    assets = files("leaf_rt.render") / "assets"
    style = (assets / "uplot" / "uPlot.min.css").read_text("utf-8") + (assets / "report.css").read_text("utf-8")
    style += "".join(_colors(number, name) for number, name in enumerate(names))
    scripts = [(assets / "uplot" / "uPlot.iife.min.js").read_text("utf-8"), _script(assets)]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "img-src data: blob:; media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
    )
    title = escape(printable(str(numbers["source"])))
    shown = numbers["people"][:_MAX_CARDS]
    cards = "".join(_card(person, names, (thumbnails or {}).get(person["person_id"])) for person in shown)
    rest = len(numbers["people"]) - len(shown) + numbers["people_forgotten"]
    if rest:
        cards += f"<p class=note>{counted(rest, 'more person').replace('persons', 'people')}, on screen for a " \
                 "shorter time, not shown here.</p>"  # fmt: skip
    body = "\n".join((
        _head(title, numbers, summary, [*notes, *_notes(summary, people)]),
        _stage(clip, bool(people), bool(numbers["cuts"])),
        f"<section aria-labelledby=people><h2 id=people>People</h2>{cards or '<p>No face was found.</p>'}</section>",
        _transitions(numbers, names),
        _events(summary, names),
        _foot(),
    ))  # fmt: skip
    script = "".join(f"<script>{text}</script>\n" for text in scripts)
    return (
        f'<!doctype html>\n<html lang=en><head><meta charset=utf-8><title>{title} · leaf-rt report</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name=viewport content="width=device-width, initial-scale=1">\n'
        '<meta name=color-scheme content="light dark">\n'
        f"<style>{style}</style></head>\n<body>{_patterns()}\n{body}\n"
        f'<script type="application/json" id=data>{data}</script>\n{script}</body></html>\n'
    )  # fmt: skip


def trust(model: Mapping[str, Any] | None) -> str:
    """How far to trust the results, in two or three sentences, from the description of the model.

    Args:
        model: ``run.model`` of the numbers; None if the records came without it.
    """
    if not model:
        return "The records do not name the model that made them, so its accuracy is unknown."
    for data, measured in (model.get("metrics") or {}).items():
        accuracy = measured.get("accuracy") if isinstance(measured, Mapping) else None
        if accuracy is None:
            continue
        faces = f" ({measured['faces']:,} faces)" if measured.get("faces") is not None else ""
        error = measured.get("calibration_error")
        shares = (
            "It was not measured whether a share of 80 % means that the label is right 80 % of the time."
            if error is None
            else f"Its highest share differs from how often the label is right by {100 * error:.1f} points on average."
        )
        return (
            f"Accuracy of this model: {accuracy:.1%} on {data}{faces}, measured against the label that most people "
            f"chose. {shares} {_NOT_A_FEELING}"
        )
    return (
        "The accuracy of this model was not measured. Check it on your own faces before you rely on it. "
        f"{_NOT_A_FEELING}"
    )


def _script(assets: Traversable) -> str:
    """The page's own script: all files in one function, because they share what they define."""
    parts = [(assets / name).read_text("utf-8") for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _colors(number: int, name: str) -> str:
    color = "#{:02x}{:02x}{:02x}".format(*rgb(name))
    fill = "url(#hatch)" if name == UNCERTAIN else color
    printed = fill if name == UNCERTAIN else f"url(#p{number % _HATCHES})"
    return f".f{number}{{fill:{fill}}}@media print{{.f{number}{{fill:{printed}}}}}"


def _patterns() -> str:
    """Patterns for "uncertain" and, in print, for every label: report.js draws the same ones."""
    lines = ["", "M0 0H8V8H0Z", "M0 4H8", "M4 0V8", "M0 8L8 0", "M0 0L8 8", "M0 4H8M4 0V8", "M0 0L8 8M0 8L8 0",
             "M2 2h1M6 6h1"]  # fmt: skip
    parts = [
        f"<pattern id=p{number} width=8 height=8 patternUnits=userSpaceOnUse><rect width=8 height=8 class=pg />"
        f'<path d="{path}" class={"pf" if number == 1 else "pl"} /></pattern>'
        for number, path in enumerate(lines)
    ]
    hatch = "<pattern id=hatch width=6 height=6 patternUnits=userSpaceOnUse patternTransform=rotate(45)>" \
            "<rect width=6 height=6 class=hg /><rect width=2 height=6 class=hl /></pattern>"  # fmt: skip
    return f"<svg class=defs width=0 height=0 aria-hidden=true><defs>{hatch}{''.join(parts)}</defs></svg>"


def _notes(summary: Summary, people: Sequence[Person]) -> list[str]:
    notes = []
    if _is_reduced(summary, people):
        notes.append(
            f"Each point of the curves stands for {summary.resolution:g} s: the line is the mean share, the pale band "
            "reaches from the smallest to the largest. All other numbers count every frame."
        )
    if len(people) > _MAX_LANES:
        notes.append(f"The timeline shows the {_MAX_LANES} people who were on screen longest.")
    if summary.events_forgotten:
        notes.append(f"The first {summary.events_forgotten:,} events are not listed.")
    return notes


def _is_reduced(summary: Summary, people: Sequence[Person]) -> bool:
    """Whether some intervals of the curves stand for several frames."""
    return sum(len(person.times) for person in people) < 0.9 * summary.records


def _data(summary: Summary, people: Sequence[Person], numbers: Mapping[str, Any], clip: Clip | None) -> str:
    """What the script needs, as JSON that is safe inside of a script element."""
    reduced = _is_reduced(summary, people)
    labels = {name: number for number, name in enumerate((*summary.labels, UNCERTAIN))}

    def share(values: Any) -> list[list[int]]:  # per mille, one list per label
        return np.rint(np.asarray(values).T * 1000).astype(int).tolist()  # type: ignore[no-any-return]

    curves = []
    for person in people[:_MAX_CARDS]:
        curve: dict[str, Any] = {"id": person.person_id, "t": np.round(person.times, 3).tolist(),
                                 "mean": share(person.curve)}  # fmt: skip
        if reduced:
            curve |= {"low": share(person.low), "high": share(person.high)}
        curves.append(curve)
    events = [
        [e["person_id"], labels[e["emotion"]], e["start_s"], e["end_s"], e["peak"], e["start_at"]]
        for e in sorted(summary.events, key=lambda e: (e["start_s"], e["person_id"]))
    ]
    data = {
        "labels": list(labels), "colors": ["#{:02x}{:02x}{:02x}".format(*rgb(name)) for name in labels],
        "numbers": numbers, "events": events, "curves": curves, "step": summary.resolution, "reduced": reduced,
        "lanes": _MAX_LANES, "listed": _STATIC_EVENTS,
        "clip": None if clip is None else {"url": clip.url, "start": clip.start},
    }  # fmt: skip
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _head(title: str, numbers: Mapping[str, Any], summary: Summary, notes: Sequence[str]) -> str:
    run = numbers["run"] or {}
    model = run.get("model")
    facts = {"Length": clock(numbers["end"] - numbers["start"])}
    if numbers["frames"] is not None:
        facts["Frames"] = f"{numbers['frames']:,}"
    facts["Frames with a face"] = f"{numbers['frames_with_faces']:,}"
    facts["People"] = str(len(numbers["people"]) + numbers["people_forgotten"])
    facts["Changes of expression"] = f"{numbers['changes']:,}"
    if numbers["cuts"]:
        facts["Hard cuts"] = f"{len(numbers['cuts']):,}"
    if model:
        facts["Model"] = f"{model['name']}, {model['precision']}"
    if run:
        facts["Made"] = f"{run['created_at'][:16].replace('T', ' ')} UTC, leaf-rt {run['version']}"
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(printable(value))}</dd></div>" for name, value in facts.items())
    lines = "".join(f"<p class=note>{escape(text)}</p>" for text in notes)
    return (f"<header><p class=brand>leaf-rt report</p><h1>{title}</h1><dl class=facts>{cells}</dl>"
            f"<p class=trust>{escape(trust(model))}</p>{lines}</header>")  # fmt: skip


def _stage(clip: Clip | None, people: bool, cuts: bool) -> str:
    if not people:
        return ""
    video = ""
    if clip is not None:
        video = (f'<figure><video id=video src="{escape(clip.url)}" controls playsinline preload=metadata></video>'
                 "<figcaption id=video-note></figcaption></figure>")  # fmt: skip
    return (
        "<section aria-labelledby=timeline class=needs-script><div class=bar-line><h2 id=timeline>Timeline</h2>"
        "<div class=tools><button type=button id=zoom-in aria-label='Zoom in'>+</button>"
        "<button type=button id=zoom-out aria-label='Zoom out'>&minus;</button>"
        "<button type=button id=zoom-all>Show all</button></div></div>"
        f"<div class=stage>{video}<div id=now class=now aria-live=off></div></div>"
        "<ul id=legend class=legend></ul><div id=lanes class=chart tabindex=0 role=application aria-label='Timeline: "
        "arrow keys move the cursor, plus and minus zoom, 0 shows all, Enter goes to the moment in the video'></div>"
        "<p class=hint>Drag to zoom, double-click to show all. Click a moment to go there"
        f"{' in the video' if clip else ''}.{' A dashed line is a cut.' if cuts else ''} "
        "Keys: &larr; &rarr; move the cursor, + &minus; zoom, 0 shows all, Enter goes to the moment.</p></section>"
        "<noscript><p class=note>The timeline and the curves need JavaScript; all numbers are below.</p></noscript>"
    )


def _card(person: Mapping[str, Any], names: Sequence[str], thumbnail: bytes | None) -> str:
    number = person["person_id"]
    shares = person["shares"]
    x, rects = 0.0, []
    for name, share in shares.items():
        rects.append(f'<rect x="{x:.2f}%" width="{max(100 * share - 0.15, 0.05):.2f}%" height="100%" '
                     f"class=f{names.index(name)}><title>{escape(name)} {share:.1%}</title></rect>")  # fmt: skip
        x += 100 * share
    spoken = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    bar = (f'<svg class=shares role=img aria-label="{escape(spoken)}">'
           f"{''.join(rects)}</svg>")  # fmt: skip
    rows = "".join(
        f"<tr><th scope=row>{_key(names.index(name))}{escape(name)}</th><td>{share:.1%}</td>"
        f"<td>{clock(person['shown_s'].get(name, 0.0))}</td><td>{_percent(person['mean_share'].get(name))}</td></tr>"
        for name, share in shares.items()
    )
    longest = person["longest"]
    stretch = "none" if longest is None else \
        f"{escape(longest['emotion'])}, {clock(longest['dwell_s'])}, from {_moment(longest['start_s'])}"  # fmt: skip
    picture = ""
    if thumbnail is not None:
        encoded = base64.b64encode(thumbnail).decode()
        picture = f'<img class=face alt="Person {number}" src="data:image/jpeg;base64,{encoded}">'
    return (
        f"<article class=person id=person-{number}><div class=person-head>{picture}<h3>Person {number}</h3>"
        f"<p>on screen {clock(person['seconds'])}, from {_moment(person['first'])} to "
        f"{_moment(person['last'])}</p>"
        f"</div>{bar}<div class=person-body><table class=numbers><thead><tr><th scope=col>shown</th>"
        "<th scope=col>of the time</th><th scope=col>time</th><th scope=col>mean share when shown</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        f"<dl class=small><div><dt>Changes</dt><dd>{person['changes']}</dd></div><div><dt>Longest</dt>"
        f"<dd>{stretch}</dd></div></dl><div class='curve chart' data-person={number}></div></div></article>"
    )


def _transitions(numbers: Mapping[str, Any], names: Sequence[str]) -> str:
    counts = numbers["transitions"]
    used = [name for name in names if name in counts or any(name in row for row in counts.values())]
    if not used:
        return ""
    largest = max(count for row in counts.values() for count in row.values())
    head = "".join(f"<th scope=col>{_key(names.index(name))}{escape(name)}</th>" for name in used)
    rows = ""
    for name in used:
        cells = ""
        for to in used:
            count = counts.get(name, {}).get(to, 0)
            strength = 0 if not count else 1 + round(4 * (count / largest) ** 0.5)
            cells += f"<td class=t{strength}>{count or ''}</td>"
        rows += f"<tr><th scope=row>{_key(names.index(name))}{escape(name)}</th>{cells}</tr>"
    return (
        "<section aria-labelledby=transitions><h2 id=transitions>Transitions</h2><p class=hint>How often "
        "the expression of the row changed directly to that of the column, for all people together.</p>"
        "<div class=scroll>"
        f"<table class=matrix><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _events(summary: Summary, names: Sequence[str]) -> str:
    if not summary.events:
        return ""
    ordered = sorted(summary.events, key=lambda e: (e["start_s"], e["person_id"]))
    rows = "".join(
        f"<tr><td>{e['person_id']}</td><td>{_key(names.index(e['emotion']))}{escape(e['emotion'])}</td>"
        f"<td>{e['start_s']:.2f}</td><td>{e['end_s']:.2f}</td><td>{e['dwell_s']:.2f}</td><td>{_percent(e['peak'])}</td></tr>"
        for e in ordered[:_STATIC_EVENTS]
    )
    columns = ("Person", "Expression", "Start, s", "End, s", "Length, s", "Peak share")
    head = "".join(f"<th scope=col data-column={number}>{name}</th>" for number, name in enumerate(columns))
    return (
        f"<section aria-labelledby=events><div class=bar-line><h2 id=events>Events</h2><div class=tools>"
        "<button type=button id=copy-events class=needs-script>Copy table</button></div></div>"
        "<p class=hint>An event lasts until the person shows another expression or has been away for 1 s.</p>"
        f"<div class='scroll tall'><table class=events id=event-table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div><p class=hint id=event-count role=status>"
        f"{min(len(ordered), _STATIC_EVENTS):,} of {len(ordered):,} events</p></section>"
    )


def _foot() -> str:
    return (
        "<footer><div class='tools needs-script'><button type=button id=get-csv>Numbers (CSV)</button>"
        "<button type=button id=get-json>Numbers (JSON)</button><button type=button id=get-events>Events (CSV)</button>"
        f"<button type=button id=print>Print</button></div><p>{_NOTICE}</p></footer>"
    )


def _key(number: int) -> str:
    """The color of a label, for use before its name."""
    return f"<svg class=key viewBox='0 0 10 10' aria-hidden=true><rect width=10 height=10 rx=2 class=f{number} /></svg>"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _moment(seconds: float) -> str:
    """A media time: 0:04.2, 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{start}:{rest // 10:02d}.{rest % 10}"
