"""The live page in a real browser, served by a real ``leaf-rt serve``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import label_places
import numpy as np
import pytest
from browser import Visit, camera_clip, chromium, driving
from clips import demo_frames
from rtsp_server import RtspServer, encode
from web import Served

from leaf_rt.labels import rgb

pytestmark = pytest.mark.slow
LONG = 60_000  # ms; the machine may be busy


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served() as running:
        yield running


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with driving() as found:
        yield found


@pytest.fixture(scope="module")
def browser(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium whose camera is the demo clip."""
    clip = camera_clip(tmp_path_factory.mktemp("camera") / "demo.mjpeg")
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(driver, *flags, f"--use-file-for-fake-video-capture={clip}") as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, permissions=["camera"])
    context.set_default_timeout(LONG)
    yield Visit(context.new_page())
    context.close()


def until(page: Any, condition: str, argument: object = None, seconds: float = 30.0) -> None:
    """Wait until a JavaScript expression holds. The page's policy forbids Playwright's own way to do this."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition, argument):
        assert time.monotonic() < end, f"never true: {condition}"
        page.wait_for_timeout(100)


def play_sample(page: Any) -> None:
    """Start the sample clip, or show it if it plays already, and wait for a face."""
    page.locator("#sources button, .notice button").first.wait_for()
    page.wait_for_timeout(500)
    if page.locator("#sources button", has_text="Sample").count():
        page.locator("#sources button", has_text="Sample").first.click()
    else:
        page.get_by_role("button", name="Play the sample clip").first.click()
    page.locator(".card").first.wait_for()


def test_own_camera_shows_sadness_and_then_happiness(visit: Visit, server: Served) -> None:
    page = visit.open(server.address)
    page.get_by_role("button", name="Use this computer's camera").first.click()
    page.locator(".card[data-emotion=sadness]").first.wait_for()
    page.locator(".card[data-emotion=happiness]").first.wait_for()
    page.locator("#overlay text", has_text=re.compile("^[0-9]+.happiness [0-9]+\\s%$")).first.wait_for()
    assert re.match(r"[0-9.]+ ms", page.locator("#figures div", has_text="glass to glass").locator("dd").inner_text())
    assert "Person" in page.locator("#spoken").inner_text()

    page.reload()  # the camera goes on by itself, and the minute before is still there
    page.locator("#sources [aria-current=true] .state", has_text="live").wait_for()
    page.locator(".card").first.wait_for()
    page.locator("#rows li", has_text=re.compile(r"Person \d\*: .*sadness")).first.wait_for(state="attached")
    page.get_by_role("button", name="Stop the camera").click()
    page.locator("#sources button", has_text="Camera of the browser").wait_for(state="detached")
    visit.is_clean(server.address)


def test_a_reloaded_page_waits_for_its_own_camera(visit: Visit, server: Served) -> None:
    """Until the browser has answered whether the camera may go on, the page chooses no other source by itself."""
    page = visit.page
    page.add_init_script(
        "const query = navigator.permissions.query.bind(navigator.permissions);"
        "navigator.permissions.query = async (what) => {"
        "  await new Promise((done) => setTimeout(done, 2500)); return query(what); };"
        "const replace = history.replaceState.bind(history); window.chosen = [];"
        "history.replaceState = (s, t, url) => { window.chosen.push(String(url)); replace(s, t, url); };"
    )
    visit.open(server.address)
    play_sample(page)
    page.get_by_role("button", name="Use this computer's camera").first.click()
    page.locator(".card[data-emotion=sadness]").first.wait_for()
    page.reload()
    page.locator("#sources button", has_text="Camera of the browser").wait_for()
    page.locator(".card").first.wait_for()
    assert page.evaluate("window.chosen") == [page.evaluate("location.hash")], "nothing but the camera was chosen"
    page.get_by_role("button", name="Stop the camera").click()
    page.locator("#sources button", has_text="Camera of the browser").wait_for(state="detached")
    visit.is_clean(server.address)


def test_reload_keeps_the_last_minute_and_a_second_viewer_joins(visit: Visit, browser: Any, server: Served) -> None:
    page = visit.open(server.address)
    play_sample(page)
    happy = "document.querySelector('#rows li')?.textContent.includes('happiness')"
    until(page, happy)
    here = page.locator(".card .who .quiet").first
    before = re.search(r"(\d+) s", here.inner_text())
    page.reload()
    page.locator(".card").first.wait_for()
    until(page, happy, seconds=4)
    after = re.search(r"(\d+) s", here.inner_text())
    assert before is not None
    assert after is not None
    assert int(after.group(1)) >= int(before.group(1))

    second = Visit(browser.new_context().new_page())
    second.open(server.address)
    second.page.locator(".card").first.wait_for(timeout=LONG)
    picture = "document.querySelector('#picture').width === 640 && !document.querySelector('.stale')"
    until(second.page, picture)
    assert page.locator("#screen.stale").count() == 0
    second.page.context.close()
    second.is_clean(server.address)
    visit.is_clean(server.address)


def test_keys_pause_the_picture_save_it_and_move_through_time(visit: Visit, server: Served, tmp_path: Path) -> None:
    page = visit.open(server.address)
    play_sample(page)
    page.wait_for_timeout(2000)
    page.keyboard.press("Space")
    assert page.locator("#badge").inner_text() == "picture paused"
    held = page.evaluate("document.querySelector('#picture').toDataURL()")
    page.wait_for_timeout(700)
    assert page.evaluate("document.querySelector('#picture').toDataURL()") == held
    page.keyboard.press("Space")
    until(page, "held => document.querySelector('#picture').toDataURL() !== held", held)

    emotion = page.locator(".card").first.get_attribute("data-emotion")
    with page.expect_download() as saving:
        page.keyboard.press("s")
    saving.value.save_as(tmp_path / "shot.png")
    picture = cv2.imread(str(tmp_path / "shot.png"))
    assert picture is not None
    assert picture.shape == (360, 640, 3)
    label = np.all(np.abs(picture.astype(int) - rgb(str(emotion))[::-1]) < 3, axis=2)
    assert label.sum() > 300 or emotion == "uncertain"

    page.locator("#rows").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    assert re.fullmatch(r"\d+ s ago", page.locator("#moment").inner_text())
    page.keyboard.press("Escape")
    assert page.locator("#moment").inner_text() == ""

    page.keyboard.press("?")
    assert page.locator("#keys-dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#keys-dialog").is_visible()
    page.get_by_text("Records", exact=True).click()
    with page.expect_download() as saving:
        page.get_by_role("link", name="CSV").click()
    assert saving.value.path().read_text().startswith("schema_version,source,")
    visit.is_clean(server.address)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_fits_a_phone(browser: Any, server: Served, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    for width in (1440, 390):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
        context.set_default_timeout(LONG)
        page = Visit(context.new_page()).open(server.address)
        play_sample(page)
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for view in (None, "?"):
            if view:
                page.keyboard.press(view)
            found = axe.Axe().run(page).response["violations"]
            assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
        page.keyboard.press("Escape")
        small = page.evaluate(
            "[...document.querySelectorAll('button, summary, a:not(.skip), input')].filter(e => e.offsetParent)"
            ".filter(e => e.offsetHeight < 44 || e.offsetWidth < 44).map(e => e.outerHTML)"
        )
        assert small == []
        context.close()


def test_thumbnails_show_the_face_and_only_where_the_server_allows_them(visit: Visit, server: Served) -> None:
    page = visit.open(server.address)
    play_sample(page)
    assert page.locator(".card .face").count() == 0
    differences = """() => {
        const face = document.querySelector('.card .face').getContext('2d').getImageData(0, 0, 96, 96).data;
        const bright = [...face].filter((_, i) => i % 4 === 0);
        const mean = bright.reduce((a, b) => a + b) / bright.length;
        return Math.sqrt(bright.reduce((sum, value) => sum + (value - mean) ** 2, 0) / bright.length);
    }"""
    with Served("--thumbnails") as allowing:
        page.goto(allowing.address)
        play_sample(page)
        page.locator(".card .face").first.wait_for()
        until(page, f"({differences})() > 15")  # a picture, not an empty square
        box = page.locator(".card .face").first.bounding_box()
        assert box is not None
        assert box["width"] == box["height"] == 44


def test_source_that_is_not_allowed_is_refused_with_a_sentence(visit: Visit, server: Served) -> None:
    page = visit.open(server.address)
    page.get_by_role("button", name="Add a source").first.click()
    page.get_by_label("Address of a camera or stream").fill("rtsp://user:secret@192.168.77.1/door")
    page.get_by_role("button", name="Add", exact=True).click()
    error = page.locator("#add-error")
    error.wait_for()
    assert "allow" in error.inner_text()
    assert "secret" not in error.inner_text()
    assert page.locator("#add-dialog").is_visible()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny"), "permission was refused"),
        (("--use-fake-ui-for-media-stream",), "no camera"),
    ],
)
def test_camera_that_does_not_come_says_why_and_what_to_do(
    driver: Any, server: Served, flags: tuple[str, ...], sentence: str
) -> None:
    with chromium(driver, *flags) as refusing:
        visit = Visit(refusing.new_page())
        page = visit.open(server.address)
        camera = page.get_by_role("button", name="Use this computer's camera").first
        camera.wait_for(timeout=LONG)
        camera.click()
        alert = page.locator("#notice [role=alert]")
        alert.wait_for(timeout=LONG)
        assert sentence in alert.inner_text()
        assert "try again" in alert.inner_text()
        assert page.get_by_role("button", name="Try again").is_visible()
        visit.is_clean(server.address)


def test_lost_stream_is_shown_offline_and_comes_back_and_so_is_a_lost_server(visit: Visit) -> None:
    with RtspServer(encode(demo_frames(50))) as camera, Served(camera.url()) as server:
        page = visit.open(server.address)
        page.locator("#sources .state", has_text=re.compile("^live$")).wait_for()
        page.locator(".card").first.wait_for()
        assert page.locator("#screen.stale").count() == 0

        camera.refusing = True
        camera.drop()
        page.locator("#sources .state", has_text=re.compile(r"^offline for \d+ s, next try in \d+ s$")).wait_for()
        page.locator("#screen.stale").wait_for()
        assert "offline for" in page.locator("#badge-state").inner_text()
        assert page.locator("#badge-reason").inner_text() != ""
        until(page, "document.querySelectorAll('#overlay text').length === 0")

        camera.refusing = False
        page.locator("#sources .state", has_text=re.compile("^live$")).wait_for()
        page.locator("#overlay text").first.wait_for()
        assert page.locator("#screen.stale").count() == 0
        visit.is_clean(server.address)

        server.process.terminate()
        page.locator("#banner", has_text="No connection to leaf-rt for").wait_for()
        page.locator("#screen.stale").wait_for()


def test_names_from_strangers_are_text(visit: Visit) -> None:
    """Names of sources and texts of errors reach the page as they are, and never as elements."""
    evil = '<img src="x" onerror="document.title=1"><script>document.title=1</script>'[:60]
    with Served() as server:
        server.add("sample", evil)
        server.add("/dev/video97", evil)
        page = visit.open(server.address)
        until(page, "text => document.body.innerText.includes(text)", evil[:20])
        page.wait_for_timeout(1500)
        assert page.evaluate("document.querySelectorAll('img[src=x], body script').length") == 0
        assert page.title() != "1"


PLACE_LABELS = """async ({ clip, texts, letter, height }) => {
  const { Layout } = await import("/static/placement.js");
  const layout = new Layout();
  return clip.frames.map(({ time, numbers, boxes }) => {
    const faces = numbers.map((number, i) => ({
      number, box: boxes[i], texts: texts.map((text) => text.replace("{n}", number)),
      textWidth: (text) => letter * text.length, textHeight: height,
    }));
    return layout.arrange(faces, clip, time).map(({ text, tag }) => [text, ...tag]);
  });
}"""

DRAW_CROWD = """async ({ width, height, boxes, emotion }) => {
  const { drawFaces } = await import("/static/overlay.js");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const faces = boxes.map((box, i) => ({ number: i + 1, emotion, share: 0.8, poor: false, box }));
  drawFaces(svg, faces, { width, height, scale: 1 }, { [emotion]: "#2e7d32" });
  return [...svg.querySelectorAll(":scope > g")].map((label) => {
    const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => +label.querySelector("rect").getAttribute(name));
    return [label.querySelector("text").textContent, x, y, x + w, y + h];
  });
}"""


def test_labels_are_where_videos_have_them(visit: Visit, server: Served) -> None:
    """``test_placement.py`` holds the Python code to the same list."""
    page = visit.open(server.address)
    golden = json.loads(label_places.PLACES.read_text())
    for clip in golden["clips"]:
        found = page.evaluate(PLACE_LABELS, {**golden, "clip": clip})
        assert found == [frame["labels"] for frame in clip["frames"]], clip["name"]


def test_labels_of_a_crowd_cover_neither_each_other_nor_a_face(visit: Visit, server: Served) -> None:
    page = visit.open(server.address)
    for name, crowd in json.loads((label_places.DATA / "crowds.json").read_text()).items():
        drawn = page.evaluate(DRAW_CROWD, {**crowd, "emotion": "happiness"})
        texts, labels = [text for text, *_ in drawn], [box for _, *box in drawn]
        assert len(labels) == len(crowd["boxes"]), name
        assert [re.split("\\W", text)[0] for text in texts] == [str(k + 1) for k in range(len(labels))]
        for k, (x0, y0, x1, y1) in enumerate(labels):
            assert 0 <= x0 < x1 <= crowd["width"] + 0.01
            assert 0 <= y0 < y1 <= crowd["height"] + 0.01
            for a0, b0, a1, b1 in [*labels[:k], *crowd["boxes"]]:
                assert not (x0 < a1 - 0.01 and a0 < x1 - 0.01 and y0 < b1 - 0.01 and b0 < y1 - 0.01), (name, texts[k])
