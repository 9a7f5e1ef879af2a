import itertools
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compress.report.drawing import Drawing, Scale, short, spanning


def test_text_is_text_whatever_it_says() -> None:
    drawing = Drawing("a", (100, 50), "<b>title", "x & y")
    drawing.text(1, 2, "</text><script>")
    root = ET.fromstring(str(drawing))
    assert [element.text for element in root] == ["<b>title", "x & y", "</text><script>"]
    assert root.attrib["aria-labelledby"].split() == [element.attrib["id"] for element in root[:2]]


def test_a_path_is_broken_where_nothing_is_known() -> None:
    drawing = Drawing("a", (100, 50), "t", "d")
    drawing.path([(0.0, 1.0), (1.25, 2.0), (2.0, math.nan), (3.0, 4.0)], "line")
    (path,) = [element for element in ET.fromstring(str(drawing)) if element.tag == "path"]
    assert path.attrib["d"] == "M0 1L1.25 2M3 4"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.05, "0.05"),
        (1200.0, "1,200"),
        (2e-8, "2e-8"),
        (2.5e-8, "2.5e-8"),
        (1e6, "1e6"),
        (250000.0, "2.5e5"),
        (-3.0, "-3"),
    ],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value).replace("\N{MINUS SIGN}", "-") == text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@example([1.0, 2e-313])
def test_a_scale_holds_all_values_and_has_ticks_on_it(values: list[float]) -> None:
    scale = spanning(values, 200, 10)
    places = [scale(value) for value in values]
    assert all(10 <= place <= 200 for place in places)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert all(places[after] <= places[before] + 1e-6 for before, after in itertools.pairwise(order))
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 12
    assert all(10 - 1e-6 <= scale(tick) <= 200 + 1e-6 for tick in ticks)


def test_a_wide_range_is_drawn_by_its_logarithm() -> None:
    scale = spanning([1e-3, 1.0], 0, 100)
    assert scale.log
    assert scale(10**-1.5) == pytest.approx(50)
    assert scale.ticks() == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    assert Scale(0, 10, 0, 100).ticks(5) == [0, 2, 4, 6, 8, 10]
