"""The colours of the page can be told apart, in light and in dark: contrast as WCAG 2.2 defines it."""

import re
from pathlib import Path

import pytest

import compress.report

STYLE = (Path(compress.report.__file__).parent / "page.css").read_text(encoding="utf-8")

LIGHT, DARK = (  # on paper they are those of light
    dict(colours)
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    if (colours := re.findall(r"--(\w+): (#\w{6});", block))
)

TEXT = [
    *((text, ground) for text in ("ink", "soft", "link", "slim") for ground in ("page", "panel")),
    ("ink", "decay"),
    ("on", "dense"),
    ("on", "slim"),
]
SHAPES = [(shape, ground) for shape in ("dense", "sparse", "slim", "soft", "ink") for ground in ("page", "decay")]


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def blend(colour: str, share: float, ground: str) -> str:
    pairs = [(int(colour[place : place + 2], 16), int(ground[place : place + 2], 16)) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(share * above + (1 - share) * below):02x}" for above, below in pairs)


def test_the_measure_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_dark_has_every_colour_of_light() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(LIGHT) > 8


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_and_shapes_be_seen(colours: dict[str, str]) -> None:
    for text, ground in TEXT:
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for shape, ground in SHAPES:
        assert contrast(colours[shape], colours[ground]) >= 3, (shape, ground)
    # Half-filled cells of a confusion matrix, the darkest that still have a number in the colour of text.
    for kind in ("dense", "slim"):
        cell = blend(colours[kind], 0.6 * 0.5**0.5, colours["panel"])
        assert contrast(colours["ink"], cell) >= 4.5, kind


def test_no_colour_is_outside_of_the_two_lists() -> None:
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(|hsl", rules)
