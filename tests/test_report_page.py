"""The report in Chromium, opened from a file: what it shows, loads, copies and prints."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from commands import Leaf
from report_data import CLIP, load, recounted, scene, write_jsonl

from leaf_rt.cli.report import report_from_records

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def scene_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a minute with three people, without a video."""
    return report_from_records(write_jsonl(tmp_path_factory.mktemp("scene") / "clip.leaf.jsonl", scene(60, 3)))[0]


class Opened:
    """A report in a new page. Its console must stay empty, and it must load nothing but files beside it."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.path = path
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_context(viewport={"width": 1440, "height": 900}, **options).new_page()
        self.page.on("console", lambda m: self.messages.append(m.text))
        self.page.on("pageerror", lambda e: self.messages.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())

    def at(self, share: float, where: str = "#lanes .u-over") -> tuple[float, float]:
        """A point of a chart, by its share of the width."""
        chart = self.page.locator(where).first
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        assert box is not None
        return box["x"] + share * box["width"], box["y"] + box["height"] / 2

    def ticks(self) -> list[float]:
        """The visible range of the timeline, s: what the cursor says at its borders."""
        found = []
        for share in (0.0005, 0.9995):
            self.page.mouse.move(*self.at(share))
            self.page.wait_for_timeout(80)
            minutes, _, seconds = self.page.locator("#now time").inner_text().partition(":")
            found.append(60 * float(minutes) + float(seconds))
        return found

    def wait(self, condition: str) -> None:
        """Wait until an expression is true. Playwright's own way needs eval, which the page's policy forbids."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(condition)

    def close(self) -> None:
        assert self.messages == []
        folder = self.path.parent.as_uri()
        assert {url for url in self.requests if not url.startswith((folder, "blob:"))} == set()
        self.page.context.close()


@pytest.fixture
def opened(browser: Browser, scene_report: Path) -> Iterator[Opened]:
    page = Opened(browser, scene_report)
    yield page
    page.close()


def test_the_page_shows_the_numbers_of_the_records(opened: Opened) -> None:
    wanted = recounted(load(opened.path.with_suffix(".jsonl")))
    assert opened.page.locator(".person").count() == len(wanted) == 3
    for person, want in wanted.items():
        card = opened.page.locator(f"#person-{person}")
        rows = {
            row.locator("th").inner_text(): row.locator("td").all_inner_texts()
            for row in card.locator(".numbers tbody tr").all()
        }
        for column, field in ((0, "shares"), (2, "mean_share")):
            shown = {n: float(cells[column].rstrip("%")) for n, cells in rows.items() if n in want[field]}
            assert shown == pytest.approx({n: 100 * share for n, share in want[field].items()}, abs=0.06)
        assert card.locator(".small dd").first.inner_text() == str(want["changes"])
        bar = card.locator("svg.shares rect").evaluate_all("all => all.map(r => r.getBoundingClientRect().width)")
        total = sum(bar)
        assert [width / total for width in bar] == pytest.approx(
            sorted(want["shares"].values(), reverse=True), abs=0.01
        )


def test_hover_shows_time_and_shares(opened: Opened) -> None:
    records = load(opened.path.with_suffix(".jsonl"))
    for share in (0.1, 0.33, 0.605, 0.9):
        opened.page.mouse.move(*opened.at(share))
        opened.page.wait_for_timeout(100)
        minutes, _, seconds = opened.page.locator("#now time").inner_text().partition(":")
        time = 60 * float(minutes) + float(seconds)
        assert time == pytest.approx(share * 60, abs=0.2)
        nearest = min((r["pts_s"] for r in records), key=lambda t: abs(t - time))
        here = {r["track_id"]: r for r in records if r["pts_s"] == nearest}
        assert set(here) == {int(w.get_attribute("data-person") or 0) for w in opened.page.locator(".who").all()}
        for person, record in here.items():
            who = opened.page.locator(f".who[data-person='{person}']")
            assert who.locator("b").inner_text().split()[-1] == record["emotion"]
            for row in who.locator(".row").all():
                label, percent = row.inner_text().split("\n")[0], row.inner_text().split("\n")[-1]
                assert float(percent.removesuffix(" %")) == pytest.approx(100 * record["smoothed"][label], abs=2.5)


def test_zoom_by_dragging_by_keys_and_back(opened: Opened) -> None:
    assert opened.ticks() == pytest.approx([0, 60], abs=0.2)
    opened.page.mouse.move(*opened.at(0.25))
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.at(0.4))
    opened.page.mouse.move(*opened.at(0.5))
    opened.page.mouse.up()
    assert opened.ticks() == pytest.approx([15, 30], abs=0.3)
    opened.page.mouse.dblclick(*opened.at(0.5))
    assert opened.ticks() == pytest.approx([0, 60], abs=0.2)
    opened.page.locator("#lanes").focus()
    for key in ("Home", "+", "+"):
        opened.page.keyboard.press(key)
    low, high = opened.ticks()
    assert (low, high - low) == (pytest.approx(0, abs=0.2), pytest.approx(15, abs=0.3))
    opened.page.keyboard.press("0")
    assert opened.ticks() == pytest.approx([0, 60], abs=0.2)
    opened.page.locator("#zoom-in").click()
    low, high = opened.ticks()
    assert high - low == pytest.approx(30, abs=0.3)
    opened.page.locator("#zoom-all").click()
    opened.page.mouse.move(5, 5)
    opened.page.locator("#lanes").focus()
    for _ in range(3):
        opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_timeout(80)
    assert opened.page.locator("#now time").inner_text() == "0:01.80"


def test_events_are_listed_sorted_and_copied(opened: Opened) -> None:
    wanted = recounted(load(opened.path.with_suffix(".jsonl")))
    events = sorted((start, person, label, end, peak) for person, want in wanted.items()
                    for label, start, end, peak in want["events"])  # fmt: skip
    rows = [row.locator("td").all_inner_texts() for row in opened.page.locator("#event-table tbody tr").all()]
    assert len(rows) == len(events)
    for cells, (start, person, label, end, peak) in zip(rows, events, strict=True):
        assert cells[:2] == [str(person), label]
        assert [float(c) for c in cells[2:5]] == pytest.approx([start, end, end - start], abs=0.0051)
        assert float(cells[5].rstrip("%")) == pytest.approx(100 * peak, abs=0.06)
    length = opened.page.locator("#event-table th", has_text="Length")
    length.get_by_role("button").click()
    length.get_by_role("button").click()
    assert length.get_attribute("aria-sort") == "descending"
    lengths = [float(t) for t in opened.page.locator("#event-table td:nth-child(5)").all_inner_texts()]
    assert lengths == sorted(lengths, reverse=True)
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened.page.locator("#copy-events").click()
    opened.page.wait_for_timeout(100)
    copied = list(csv.DictReader(io.StringIO(opened.page.evaluate("navigator.clipboard.readText()")), delimiter="\t"))
    assert sorted((float(r["start_s"]), int(r["person"]), r["expression"]) for r in copied) == [e[:3] for e in events]


def test_downloads_hold_the_same_numbers(opened: Opened, tmp_path: Path) -> None:
    numbers = json.loads(opened.path.with_suffix(".summary.json").read_text())
    got = {}
    for button in ("get-json", "get-csv", "get-events"):
        with opened.page.expect_download() as download:
            opened.page.locator(f"#{button}").click()
        got[button] = tmp_path / download.value.suggested_filename
        download.value.save_as(got[button])
    assert sorted(p.name for p in got.values()) == ["clip-events.csv", "clip-numbers.csv", "clip-numbers.json"]
    assert json.loads(got["get-json"].read_text()) == numbers
    with got["get-csv"].open(newline="") as f:
        rows = {int(r["person"]): r for r in csv.DictReader(f)}
    for person in numbers["people"]:
        row = rows[person["track_id"]]
        assert float(row["seconds"]) == person["seconds"]
        assert int(row["changes"]) == person["changes"]
        for label in numbers["labels"]:
            assert float(row[f"shares_{label}"]) == person["shares"].get(label, 0)
            assert row[f"mean_share_{label}"] == str(person["mean_share"].get(label, ""))
    with got["get-events"].open(newline="") as f:
        assert len(list(csv.DictReader(f))) == numbers["events"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(browser: Browser, scene_report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    opened = Opened(browser, scene_report, color_scheme=scheme, bypass_csp=True)
    found = axe.Axe().run(opened.page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    opened.page.context.close()


def test_a_phone_scrolls_in_one_direction_only(browser: Browser, scene_report: Path) -> None:
    opened = Opened(browser, scene_report)
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    small = opened.page.locator("button:visible").evaluate_all("all => all.map(b => b.getBoundingClientRect().height)")
    assert min(small) >= 24
    opened.close()


def test_it_prints_in_black_and_white(opened: Opened, tmp_path: Path) -> None:
    opened.page.emulate_media(media="print")
    # The page draws itself again for the printer, which may take a moment.
    opened.page.wait_for_function(
        """() => ![...document.querySelectorAll("canvas")].some((canvas) => {
             const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
             for (let i = 0; i < data.length; i += 4) {
               const far = Math.abs(data[i] - data[i + 1]) + Math.abs(data[i] - data[i + 2]) > 24;
               if (far && data[i + 3] > 100) return true;
             }
             return false; })"""
    )
    assert opened.page.locator("#person-1 .curve canvas").count() == 1  # drawn though it was not in view
    opened.page.emulate_media(media="screen")


def test_without_scripts_all_numbers_are_there(browser: Browser, scene_report: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(scene_report.as_uri())
    assert page.locator(".person .numbers tbody tr").count() >= 3
    assert page.locator("#event-table tbody tr").count() > 20
    assert "need JavaScript" in page.locator("body").inner_text()
    assert not page.locator("#zoom-in").is_visible()
    page.context.close()


def test_a_missing_video_is_said_and_the_rest_works(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / CLIP.name).write_bytes(b"no video")
    path, _, _ = report_from_records(write_jsonl(tmp_path / "clip.leaf.jsonl", scene(20, 1)))
    opened = Opened(browser, path)
    opened.page.wait_for_selector("p#video-note")
    opened.page.mouse.click(*opened.at(0.5))
    opened.page.mouse.move(5, 5)
    opened.page.wait_for_timeout(100)
    assert opened.page.locator("#now time").inner_text().startswith("0:10")
    opened.page.context.close()  # Chromium may log the broken video


def test_hard_cuts_are_drawn_in_the_timeline(browser: Browser, tmp_path: Path) -> None:
    frames = list(scene(10, 1))
    cut = next(number for number, (frame, _) in enumerate(frames) if frame.timestamp >= 5.0)
    ink = """() => {
        const {width, height} = document.querySelector('#lanes canvas');
        const pixels = document.querySelector('#lanes canvas').getContext('2d').getImageData(0, 0, width, height).data;
        const over = document.querySelector('#lanes .u-over').getBoundingClientRect();
        const canvas = document.querySelector('#lanes canvas').getBoundingClientRect();
        const columns = new Set();
        const rows = 4 * width * 4; // the first rows: above the colored bars
        for (let i = 0; i < rows; i += 4) {
            if (pixels[i] < 60 && pixels[i + 1] < 60 && pixels[i + 3] > 100) columns.add((i / 4) % width);
        }
        return [...columns].map((x) => (x / width * canvas.width - (over.left - canvas.left)) / over.width);
    }"""
    for shots, wanted in (([0] * len(frames), []), ([int(n >= cut) for n in range(len(frames))], [5.0])):
        folder = tmp_path / str(sum(shots))
        folder.mkdir()
        rows = [(frame, replace(estimates, shot=shot)) for (frame, estimates), shot in zip(frames, shots, strict=True)]
        report, numbers_file, _ = report_from_records(write_jsonl(folder / "clip.leaf.jsonl", rows))
        found = json.loads(numbers_file.read_text())
        assert found["cuts"] == wanted
        page = Opened(browser, report)
        drawn = page.page.evaluate(ink)
        assert bool(drawn) == bool(wanted)
        assert all(share * found["end"] == pytest.approx(5.0, abs=0.05) for share in drawn)
        assert ("A dashed line is a cut." in page.page.content()) == bool(wanted)
        page.close()


@pytest.mark.parametrize("name", ["demo", "street"])
def test_a_real_run(leaf: Leaf, browser: Browser, tmp_path: Path, name: str, media: Path) -> None:
    """The command line's report: equal to its records, and a click goes to that moment of the annotated video."""
    clip = ROOT / "examples" / "demo.mp4" if name == "demo" else media / "street_1080p.mp4"
    done = leaf("video", clip, "--out", tmp_path, "--vtt", "--log-json")
    assert done.code == 0, done.err
    stem = tmp_path / f"{clip.stem}.leaf"
    numbers = json.loads(stem.with_suffix(".leaf.summary.json").read_text())
    logged = [json.loads(line) for line in done.err.splitlines() if '"finished"' in line]
    assert logged[0]["summary"] == numbers
    wanted = recounted(load(stem.with_suffix(".leaf.jsonl")))
    assert len(wanted) == (1 if name == "demo" else len(numbers["people"])) > (0 if name == "demo" else 4)
    for person in numbers["people"]:
        want = wanted[person["track_id"]]
        assert person["shares"] == pytest.approx(want["shares"], abs=0.01)
        assert person["changes"] == want["changes"]
        assert f"Person {person['track_id']}".split()[1] in done.out.replace("person", "")
    opened = Opened(browser, stem.with_suffix(".leaf.html"))
    opened.wait("document.getElementById('video').readyState >= 1")
    for share in (0.5, 0.2, 0.8):
        opened.page.mouse.click(*opened.at(share))
        opened.wait("!document.getElementById('video').seeking")
        time = opened.page.evaluate("document.getElementById('video').currentTime")
        assert time == pytest.approx(share * numbers["end"], abs=0.1)
    assert "84." in opened.page.locator(".trust").inner_text()
    opened.close()
    again, again_numbers, _ = report_from_records(stem.with_suffix(".leaf.jsonl"), out=tmp_path / "again.html")
    assert json.loads(again_numbers.read_text()) == numbers
    assert again.stat().st_size < 1_000_000


def test_a_browser_plays_the_subtitles(leaf: Leaf, browser: Browser, tmp_path: Path) -> None:
    from leaf_rt.labels import FERPLUS8
    from leaf_rt.sinks.vtt import VttSink

    with VttSink(tmp_path / "a.vtt", FERPLUS8) as sink:
        for frame, estimates in scene(20, 2):
            sink.write(CLIP, frame, estimates, 0.0)
    page = browser.new_page()
    page.goto("about:blank")
    text = (tmp_path / "a.vtt").read_text()
    found = page.evaluate(
        """async (text) => {
             const video = document.createElement("video"), track = document.createElement("track");
             track.src = URL.createObjectURL(new Blob([text], { type: "text/vtt" }));
             track.default = true;
             video.append(track);
             document.body.append(video);
             track.track.mode = "hidden";
             await new Promise((done, failed) => { track.onload = done; track.onerror = () => failed("error"); });
             return [...track.track.cues].map((c) => [c.startTime, c.endTime, c.text]); }""",
        text,
    )
    assert len(found) == text.count(" --> ") > 5
    assert all(end > start for start, end, _ in found)
    assert {line.partition(":")[0] for _, _, line in found} == {"Person 1", "Person 2"}
    page.close()


def test_an_hour_with_five_people_is_small_and_fluent(browser: Browser, tmp_path: Path) -> None:
    """450,000 rows would take minutes to write here; 90,000 rows have as many points after the reduction."""
    path, _, _ = report_from_records(write_jsonl(tmp_path / "hour.jsonl", scene(3600, 5, fps=5.0)))
    assert path.stat().st_size < 5_000_000
    opened = Opened(browser, path)
    assert "Each point of the curves stands for" in opened.page.locator("header").inner_text()
    for curve in opened.page.locator(".curve").all():
        curve.scroll_into_view_if_needed()
        curve.locator("canvas").wait_for()
    milliseconds = opened.page.evaluate(
        """async () => { const start = performance.now();
             for (let n = 0; n < 5; n += 1) {
               document.getElementById("zoom-in").click();
               await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
             }
             return (performance.now() - start) / 5; }"""
    )
    assert milliseconds < 1500  # about 100 on an idle machine
    opened.close()
