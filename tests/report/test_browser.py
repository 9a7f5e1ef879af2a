"""The page in a real browser, Chromium: what it shows, and that it asks nobody for anything."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compress.report.page import page

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


# What is wider than its place, beside the bar of links, which scrolls by itself, and text for those who listen.
WIDER = """() => [...document.querySelectorAll("main *, header *, footer *")].filter(element => {
  const style = getComputedStyle(element);
  const hidden = element.closest(".unseen, thead") || style.display === "inline" || element.closest("svg");
  return !hidden && element.clientWidth && element.scrollWidth > element.clientWidth + 1;
}).map(element => element.outerHTML.slice(0, 80))"""

# Cells of the slim network that are not on the screen.
OUTSIDE = """() => [...document.querySelectorAll("td[data-label=slim], .choices tr:nth-child(2) td, .images span")]
  .map(cell => cell.getBoundingClientRect())
  .filter(box => !box.width || box.left < 0 || box.right > innerWidth).length"""

LONG = "a_very_long_name_of_a_layer.with_many_parts.and_no_space_in_it." * 3


def every_section(results: dict[str, Any]) -> dict[str, Any]:
    """Results with all that any task shows, long names, many stages, and lines of code that are longer than a phone."""
    curve = [0.1 * number for number in range(30)]
    roc = {"false_alarms": [0.0, 0.2, 1.0], "found": [0.0, 0.9, 1.0], "auroc": 0.87654321}
    results["values"] = {"target": curve, "dense": curve, "slim": curve[::-1]}
    results["series"] = [{"number": 12_345, "target": curve, "dense": curve, "slim": curve}]
    results["roc"] = {"dense": roc, "slim": roc}
    results["text"] = {"prompt": LONG, "dense": "b" * 300, "slim": "c c c " * 80}
    results["stages"] *= 3
    results["recipe"]["stages"] *= 3
    results["stages"][0]["target"] = LONG
    results["warnings"] = [LONG]
    results["tensors"].append({"name": LONG, "shape": [512, 512, 3, 3], "zeros": 17, "slim": [256, 256, 3, 3]})
    results["recipe"]["model"] = {"factory": "module:build", "args": {"path": LONG}}
    for model in results["models"].values():
        model["metric"] |= {"matthews_corrcoef": 0.123456789, "a_metric_of_the_users_own": 123456.789}
    if "by_class" in results:
        results["by_class"]["names"] = [LONG, *map(str, range(1, len(results["by_class"]["of"])))]
    return results


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("which", ["changed", "every_choice"])
def test_nothing_is_wider_than_the_screen(
    browser: Any, request: pytest.FixtureRequest, tmp_path: Path, which: str, width: int, scheme: str
) -> None:
    """Every section of every task: a phone shows the slim column and whole lines of code without scrolling."""
    file = tmp_path / "report.html"
    file.write_text(page(every_section(request.getfixturevalue(which))), encoding="utf-8")
    with Visit(browser, file, width, scheme) as visit:
        visit.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
        assert visit.run(OVERFLOW) == 0
        assert visit.run(WIDER) == []
        assert visit.run("document.querySelectorAll('td[data-label=slim]').length") > 10
        assert visit.run(OUTSIDE) == 0
        assert visit.run(UNSEEN) == []


CONTRAST = """() => {
  const light = text => {
    const parts = text.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255);
    const linear = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const page = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(".better, .worse, .change, .conditions")].map(element => {
    const [low, high] = [page, light(getComputedStyle(element).color)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gains_and_losses_differ_by_more_than_a_colour(
    browser: Any, every_choice: dict[str, Any], tmp_path: Path, scheme: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(every_choice), encoding="utf-8")
    with Visit(browser, file, 1400, scheme) as visit:
        assert min(visit.run(CONTRAST)) > 4.5  # WCAG AA
        for verdict, mark in (("better", "▲ better: "), ("worse", "▼ worse: ")):
            texts = visit.run(f"[...document.querySelectorAll('.change.{verdict}')].map(one => one.textContent)")
            assert texts
            assert all(text.startswith(mark) for text in texts)
        colours = "kind => getComputedStyle(document.querySelector(`.change.${kind}`)).color"
        assert visit.page.evaluate(colours, "better") != visit.page.evaluate(colours, "worse")


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
