"""The page in a real browser, Debian's chromium, against a real server and collection."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from umr.data.qrels import read_qrels
from umr.search.benchmark import did_of, export
from umr.search.collection import Collection
from umr.search.judgements import Judgements
from umr.serving.settings import ServerSettings
from unit.serving.live_server import KEY, Running, running
from unit.serving.shown_folder import HOSTILE_NAME, HOSTILE_TEXT, ROWS, copied, picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
ALL, FILES = sum(ROWS.values()), sum(ROWS.values()) - 2  # a PDF and a film have two rows each

DROP = """async ([content, name, type]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""
OVER = """() => [...document.querySelectorAll(".card button")].filter((button) => {
  const [inner, outer] = [button, button.closest(".card")].map((element) => element.getBoundingClientRect());
  return inner.width && (inner.right > outer.right || inner.left < outer.left);
}).length"""
SOUGHT = """async (film) => {
  for (let tries = 0; tries < 100 && !film.currentTime; tries++) await new Promise((done) => setTimeout(done, 100));
  return film.currentTime;
}"""
PALE = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
  };
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !element.closest(":disabled");
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const pale = [];
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !seen(element)) continue;
    const [one, other] = [light(channels(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) pale.push(`${node.data.trim()} ${ratio.toFixed(2)}`);
  }
  return pale;
}"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def shown(home: Path) -> Iterator[Running]:
    """An open server, as on one's own machine."""
    with running(ServerSettings(), home=home) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@contextmanager
def visit(browser: Browser, server: Running, path: str = "/", expected: str = "^$", **options: object) -> Iterator[Page]:
    """A page whose console must stay silent (but for lines that match `expected`), and that asks this server alone."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(30_000)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.text} {message.location['url']}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.goto(server.url + path)
    yield page
    context.close()
    assert [line for line in said if not re.search(expected, line)] == []
    assert [url for url in asked if not url.startswith((f"{server.url}/", f"blob:{server.url}/"))] == []


def drop(page: Page, content: bytes, name: str = "mine.png", type: str = "image/png") -> None:
    page.evaluate(DROP, [base64.b64encode(content).decode(), name, type])


@contextmanager
def searching(page: Page) -> Iterator[None]:
    """Wait for the search that something begins, and for its results."""
    with page.expect_response("**/v1/search"):
        yield
    page.locator('#results[aria-busy="false"]').wait_for()


def cards(page: Page, count: int) -> Locator:
    """The cards, once there are so many."""
    from playwright.sync_api import expect

    found = page.locator(".card")
    expect(found).to_have_count(count, timeout=30_000)
    return found


def card(page: Page, name: str) -> Locator:
    return page.locator(".card", has=page.locator("h3", has_text=name)).first


def ids(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("all => all.map((card) => card.hit.id)")


def test_image_and_words_are_one_query_and_the_address_brings_it_back(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?by=hybrid") as page:
        page.get_by_role("heading", name=f"{ALL} items in shown").wait_for()
        with page.expect_request("**/v1/search") as first:
            drop(page, picture("png", 1))
        assert (set(first.value.post_data_json["query"]), first.value.post_data_json["mode"]) == ({"image"}, "vector")
        cards(page, ALL)
        page.locator("#notes", has_text="There are no words to search by").wait_for()
        page.locator("#text").fill("make it blue")
        with page.expect_request("**/v1/search") as second, searching(page):
            page.locator("#text").press("Enter")
        query = second.value.post_data_json["query"]
        assert second.value.post_data_json["mode"] == "hybrid" and query["text"] == "make it blue"
        assert base64.b64decode(query["image"].partition(",")[2]) == picture("png", 1)
        cards(page, ALL)
        assert page.locator("#status").inner_text().startswith(f"{ALL} results in ")
        both, address = ids(page), page.url
        page.reload()  # the image is kept by this browser, not by the address
        cards(page, ALL)
        assert (ids(page), page.locator("#text").input_value(), page.locator(".chip-name").inner_text()) == (
            both,
            "make it blue",
            "mine.png",
        )
        page.go_back()
        page.locator("#notes", has_text="There are no words to search by").wait_for()
        assert page.locator("#text").input_value() == "" and page.locator("#image-chip").is_visible()
    with visit(browser, shown, address.removeprefix(shown.url)) as page:  # elsewhere the image is missed, in words
        page.get_by_role("button", name="Search without it").click()
        cards(page, ALL)


def test_kinds_filters_and_modes_narrow_and_order(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=a+red+circle") as page:
        cards(page, ALL)
        page.get_by_role("checkbox", name="Image with text 2").click()
        cards(page, 2)
        assert all(id.startswith("paper.pdf") for id in ids(page))
        page.get_by_role("checkbox", name="Image with text 2").click()
        cards(page, ALL)
        page.get_by_role("button", name="Options").click()
        page.get_by_role("button", name="Add a filter").click()
        page.get_by_label("Field").fill("year")
        page.get_by_label("Condition").select_option("at least")
        page.get_by_label("Value").fill("2020")
        page.get_by_label("Value").press("Enter")
        cards(page, 2)
        assert sorted(ids(page)) == ["photos/shot-1.jpg", "photos/shot-2.jpg"] and "where=year%3E%3D2020" in page.url
        page.get_by_role("button", name="year at least 2020: take away").click()
        cards(page, ALL)
        page.get_by_role("radio", name="Both").click()
        page.locator(".scores dt", has_text="fused").first.wait_for()
        note = card(page, "note.txt")
        assert note.locator("dt").all_inner_texts() == ["cosine", "words", "fused"]
        assert note.locator("mark").all_inner_texts() == ["a", "red", "circle"][-2:]
        page.get_by_label("Without").fill("blue")
        with searching(page):
            page.get_by_label("Without").press("Enter")
        assert page.get_by_role("button", name="without blue: take away").is_visible()
        card(page, "note.txt").focus()
        page.keyboard.press("+")  # no benchmark has such queries
        page.locator("#toast", has_text="Cannot be marked").wait_for()
        page.get_by_label("only the best of each file").check()
        cards(page, FILES)
        page.get_by_label("Rerank with").select_option("judge")
        page.locator(".scores .decided dt", has_text="rerank").first.wait_for()


def test_more_results_come_by_pages(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=ring&k=4") as page:
        cards(page, 4)
        page.get_by_role("button", name="Show more").click()
        cards(page, 8)
        page.get_by_role("button", name="Show more").click()
        cards(page, ALL)
        page.locator("#more").wait_for(state="hidden")
        assert len(set(ids(page))) == ALL and page.locator(".rank").all_inner_texts() == [str(rank) for rank in range(1, ALL + 1)]
        card(page, "note.txt").locator(".like").click()
        cards(page, 4)
        page.go_back()  # with all of its pages, and without asking again
        cards(page, ALL)


def test_a_page_opens_as_a_picture_and_its_file_at_the_page(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=two+of+them&kind=image%2Ctext&where=source!%3Dlong.webm&kind=video") as page:
        hits = cards(page, 3)
        second = next(hit for hit in hits.all() if "page 2" in hit.inner_text())
        second.locator(".open").click()
        image = page.get_by_role("img", name="Page 2 of paper.pdf")
        image.wait_for()
        assert image.evaluate("async (image) => (await image.decode(), image.naturalWidth)") > 500
        assert "two of them moving" in page.locator("#viewer-body").inner_text()
        link = page.get_by_role("link", name="Open the file").get_attribute("href") or ""
        assert link.endswith("#page=2")
        sent = httpx.get(link.partition("#")[0], trust_env=False)
        assert sent.headers["content-type"] == "application/pdf" and sent.content.startswith(b"%PDF")
        seen = []
        for _ in range(2):
            page.keyboard.press("ArrowRight")
        for _ in range(3):
            seen.append(page.locator("#viewer-name").inner_text())
            page.keyboard.press("ArrowLeft")
        assert set(seen) == {"paper.pdf, page 1", "paper.pdf, page 2", "film.mp4, 0:00–0:02"}
        page.keyboard.press("Escape")
        page.locator("#viewer").wait_for(state="hidden")
        assert page.locator(".card:focus").count() == 1
        card(page, "film.mp4").locator(".open").click()  # in a codec that chromium does not play
        frames = page.get_by_role("img", name="Frames of film.mp4")
        assert frames.evaluate("async (image) => (await image.decode(), image.naturalHeight)") == 32


def test_a_clip_opens_at_its_beginning(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=two+of+them&where=source%3Dlong.webm") as page:
        cards(page, 2)
        card(page, "long.webm").wait_for()
        page.locator(".card", has_text="0:10–0:20").locator(".open").click()
        assert abs(page.locator("#viewer-body video").evaluate(SOUGHT) - 10) < 0.3


def test_marks_are_written_shown_again_and_taken_back(browser: Browser, shown: Running, home: Path, tmp_path: Path) -> None:
    with visit(browser, shown) as page:
        drop(page, picture("png", 1))  # before the page knows what the server has
        cards(page, ALL)
        page.locator("#text").fill("make it blue")
        with searching(page):
            page.locator("#text").press("Enter")
        page.locator("h1").click()
        page.keyboard.press("/")
        assert page.locator("#text:focus").count() == 1
        for name, key in (("shot-1.jpg", "+"), ("shot-2.jpg", "-"), ("scan.tiff", "+")):
            card(page, name).focus()
            page.keyboard.press(key)
            page.locator("#toast", has_text=f"{name}: marked").wait_for()
        card(page, "scan.tiff").locator(".open").click()  # and with the whole picture in view
        assert page.locator("#viewer-right").get_attribute("aria-pressed") == "true"
        page.keyboard.press("+")
        page.locator("#viewer-said", has_text="scan.tiff: mark taken back.").wait_for()
        page.locator("#viewer-wrong").click()
        page.locator("#viewer-said", has_text="scan.tiff: marked wrong.").wait_for()
        page.locator('#viewer-wrong[aria-pressed="true"]').click()
        page.locator("#viewer-said", has_text="scan.tiff: mark taken back.").wait_for()
        page.locator("#viewer-close").click()
        page.reload()
        page.locator('.right[aria-pressed="true"]').wait_for()
        pressed = {name: card(page, name).get_attribute("data-mark") for name in ("shot-1.jpg", "shot-2.jpg", "scan.tiff")}
        assert pressed == {"shot-1.jpg": "right", "shot-2.jpg": "wrong", "scan.tiff": ""}
    marks = [mark for mark in Judgements(home / "shown").marks() if mark.text == "make it blue"]
    assert [(mark.id, mark.right) for mark in marks] == [("photos/shot-1.jpg", True), ("photos/shot-2.jpg", False)]
    assert (home / "shown/judgements" / marks[0].image).read_bytes() == picture("png", 1)
    with Collection.open(home / "shown", shown.embedder) as collection:
        export(collection, tmp_path / "benchmark")
    (qrels,) = (tmp_path / "benchmark/qrels").rglob("*.txt")
    assert [*read_qrels(qrels).relevant.values()] == [{did_of("photos/shot-1.jpg"): 1}]


def test_more_like_this_and_the_keyboard(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=a+red+circle") as page:
        found = cards(page, ALL)
        names = ids(page)
        found.first.focus()
        for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", ALL - 1), ("Home", 0)):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.hit.id") == names[place]
        page.keyboard.press("ArrowDown")
        below = page.evaluate("document.activeElement.hit.id")
        page.keyboard.press("ArrowUp")
        assert names.index(below) >= 2 and page.evaluate("document.activeElement.hit.id") == names[0]
        assert page.locator(".card[tabindex='0']").count() == 1  # Tab goes past the others
        page.keyboard.press("m")
        page.locator(".chip-name", has_text="More like").wait_for()
        cards(page, ALL - 1)
        assert set(ids(page)) == set(names[1:]) and page.evaluate("document.activeElement.hit.id") == ids(page)[0]
        page.keyboard.press("Enter")
        page.locator("#viewer[open]").wait_for()
        page.keyboard.press("-")  # also in the first one, whose button for the one before is off
        page.locator("#viewer-said", has_text="marked wrong").wait_for()
        for _ in range(ALL - 2):
            page.locator("#viewer-next").click()
        assert page.locator("#viewer-next").is_disabled()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#viewer-next").is_enabled()


def test_hostile_names_and_texts_are_only_read(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=a+red+circle&by=words") as page:
        hit = card(page, "img src")
        assert hit.locator("h3").inner_text() == HOSTILE_NAME and hit.locator(".excerpt").inner_text() == HOSTILE_TEXT
        hit.locator(".shot").click()
        assert HOSTILE_TEXT in page.locator("#viewer-body").inner_text()
        page.keyboard.press("Escape")
        page.keyboard.press("m")
        cards(page, ALL - 1)
        assert page.title().startswith("Like ") and page.locator("main script, main textarea").count() == 0


def test_narrow_and_dark(browser: Browser, shown: Running) -> None:
    for scheme in ("light", "dark"):
        size = {"width": 360, "height": 740}
        options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce"}
        with visit(browser, shown, "/?q=red+circle&by=hybrid&rerank=judge&depth=1&where=id!%3Dx&without=blue", **options) as page:
            hits = cards(page, ALL)
            page.locator("#options-button").click()
            hits.first.scroll_into_view_if_needed()
            assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
            assert page.evaluate(OVER) == 0
            assert page.evaluate(PALE) == []
            assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 26)") == (scheme == "dark")
            assert page.locator(".card").first.evaluate("(card) => getComputedStyle(card).transitionDuration") == "0s"
            hits.first.locator(".shot").click()
            page.locator("#viewer[open]").wait_for()
            assert page.evaluate(PALE) == []
            assert page.locator("#viewer").evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
            for width in (540, 700, 820, 1100, 1280):
                page.set_viewport_size({"width": width, "height": 740})
                assert page.evaluate(OVER) == 0, width


def test_what_goes_wrong_is_said_in_words(browser: Browser, shown: Running) -> None:
    with visit(browser, shown, "/?q=zebra&by=words", expected="Failed to load") as page:
        page.get_by_role("heading", name="Nothing was found").wait_for()
        drop(page, b"%PDF-1.4", "paper.pdf", "application/pdf")
        page.locator("#toast", has_text="paper.pdf is no image").wait_for()
        drop(page, b"no picture at all")
        page.locator("#message", has_text="Mode words reads text alone").wait_for()
        page.get_by_role("button", name="Take mine.png away").click()
        page.get_by_role("heading", name="Nothing was found").wait_for()
        page.context.set_offline(True)
        page.locator("#text").press("Enter")
        page.locator("#message", has_text="The server does not answer").wait_for()
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("heading", name="Nothing was found").wait_for()


def test_a_locked_server_asks_for_its_key(browser: Browser, home: Path) -> None:
    with (
        running(ServerSettings(keys=(KEY,)), home=home) as server,
        visit(browser, server, "/?q=shot&kind=image", expected="401") as page,
    ):
        for key in ("not-the-key-at-all", KEY):
            page.locator("#key-value").fill(key)
            page.get_by_role("button", name="Continue").click()
            if key != KEY:
                page.locator("#key-why", has_text="Wrong API key").wait_for()
        hits = cards(page, ROWS["image"])
        assert hits.first.locator("img[src]").evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 256
        hits.first.locator(".shot").click()
        image = page.locator("#viewer-body img[src]")
        assert image.evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 320
        page.reload()  # the key stays until the tab is closed
        cards(page, ROWS["image"])
        with searching(page):
            drop(page, picture("png", 1))
        address = page.url
        page.get_by_role("button", name="Forget the key").click()
        page.locator("#key[open]").wait_for()
        page.goto(address)
        page.locator("#key-value").fill(KEY)
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("heading", name="The image of this search is not on this device").wait_for()
