"""The page in a real browser, Chromium: what it shows, and that it asks nobody for anything."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        # Its sandbox does not start for root, as in a container; the page is ours.
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=["applied", "classified"])
def file(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder / "report.html"


class Visit:
    """An open page, and what it has complained about or asked for."""

    def __init__(self, browser: Any, file: Path, width: int, scheme: str) -> None:
        size = {"width": width, "height": 800}
        self._context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        self.page, self.said, self.asked = self._context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(file.as_uri())

    def run(self, code: str) -> Any:
        return self.page.evaluate(code)

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()


# Of each figure at least one drawing, and every picture, must take up room.
UNSEEN = """() => {
  const seen = element => { const box = element.getBoundingClientRect(); return box.width > 20 && box.height > 8 };
  const drawn = figure => [...figure.querySelectorAll("svg")].some(seen);
  const empty = [...document.querySelectorAll("figure")].filter(figure => !drawn(figure));
  const broken = [...document.images].filter(image => !seen(image) || !image.complete || !image.naturalWidth);
  return [...empty, ...broken].map(element => element.outerHTML.slice(0, 80));
}"""

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.extended
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_it_shows_everything_quietly_at_any_width(browser: Any, file: Path, width: int, scheme: str) -> None:
    with Visit(browser, file, width, scheme) as visit:
        assert visit.run(UNSEEN) == []
        assert visit.run("document.querySelectorAll('figure').length") >= 3
        assert visit.run(OVERFLOW) == 0
        text = "[...document.querySelectorAll('svg text')].filter(text => text.getBoundingClientRect().height)"
        assert visit.run(f"Math.min(...{text}.map(text => text.getBoundingClientRect().height))") > 8
        # The page is really dark where dark is wanted.
        red = visit.run("getComputedStyle(document.body).backgroundColor").split("(")[1].split(",")[0]
        assert (int(red) < 60) == (scheme == "dark")
        assert visit.said == []
        assert {address for address in visit.asked if not address.startswith("data:")} == {file.as_uri()}


@pytest.mark.extended
@pytest.mark.parametrize("width", [360, 1400])
def test_its_links_lead_to_their_sections(browser: Any, file: Path, width: int) -> None:
    with Visit(browser, file, width, "light") as visit:
        links = visit.page.locator("nav a")
        assert links.count() >= 9
        for number in range(links.count()):
            link = links.nth(number)
            anchor = link.get_attribute("href")
            link.click()
            assert visit.run("location.hash") == anchor
            place = visit.run(f"document.querySelector('{anchor}').getBoundingClientRect().top")
            bottom = visit.run("innerHeight + scrollY >= document.documentElement.scrollHeight - 1")
            bar = visit.run("document.querySelector('nav').getBoundingClientRect().bottom")
            assert bar <= place < 200 or bottom, anchor
        visit.page.keyboard.press("Tab")
        assert visit.said == []


def test_the_keyboard_gets_past_the_navigation(browser: Any, file: Path) -> None:
    with Visit(browser, file, 360, "light") as visit:
        visit.page.keyboard.press("Tab")
        assert visit.run("document.activeElement.className") == "skip"
        assert visit.run("document.activeElement.getBoundingClientRect().left") >= 0
        visit.page.keyboard.press("Enter")
        assert visit.run("location.hash") == "#main"


def test_on_paper_it_is_light_and_whole(browser: Any, file: Path) -> None:
    with Visit(browser, file, 700, "dark") as visit:
        visit.page.emulate_media(media="print", color_scheme="dark")
        assert visit.run("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert visit.run(UNSEEN) == []
        assert visit.run(OVERFLOW) == 0
        assert visit.run("getComputedStyle(document.documentElement).getPropertyValue('--ink')").strip() == "#1d2125"
        # Else the paper itself is dark, under dark ink.
        assert visit.run("getComputedStyle(document.documentElement).colorScheme") == "light"
        cut = "[...document.querySelectorAll('.scroll, pre')].filter(box => box.scrollHeight > box.clientHeight + 1)"
        assert visit.run(f"{cut}.length") == 0
        assert visit.page.pdf(format="A4").startswith(b"%PDF")
        assert visit.said == []
