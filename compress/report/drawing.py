"""Small SVG figures for a page, with real text, and with colours as classes of the page's style sheet.

One figure thus serves the light page, the dark page and paper. Figures are some 400 units wide: on a phone, where a
unit is a pixel, their text has the size of the page's text; a wider page shows several side by side.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET


class Drawing:
    """An <svg> under construction; later elements are drawn on top. Text cannot become markup."""

    def __init__(self, name: str, size: tuple[float, float], title: str, description: str) -> None:
        """
        Args:
            name: unique on its page.
            title, description: the text for readers who cannot see the figure.
        """
        width, height = size
        self._root = ET.Element(
            "svg",
            {
                "viewBox": f"0 0 {_n(width)} {_n(height)}",
                "role": "img",
                "aria-labelledby": f"{name}-title {name}-text",
                "style": f"max-width: {_n(1.2 * width)}px",
            },
        )
        for tag, key, content in (("title", "title", title), ("desc", "text", description)):
            ET.SubElement(self._root, tag, {"id": f"{name}-{key}"}).text = content

    def __str__(self) -> str:
        return ET.tostring(self._root, encoding="unicode")

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
        self._add("line", kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])

    def path(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A line through the points, broken where one of them is not finite."""
        parts, pen = [], "M"
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                parts.append(f"{pen}{_n(x)} {_n(y)}")
                pen = "L"
            else:
                pen = "M"
        ET.SubElement(self._root, "path", {"class": kind, "d": "".join(parts)})

    def box(self, x: float, y: float, width: float, height: float, kind: str, opacity: float = 1.0) -> None:
        more = {} if opacity == 1 else {"fill-opacity": opacity}
        self._add("rect", kind, x=x, y=y, width=max(0.0, width), height=max(0.0, height), **more)

    def dot(self, x: float, y: float, kind: str, radius: float = 4.0) -> None:
        self._add("circle", kind, cx=x, cy=y, r=radius)

    def text(self, x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> None:
        attributes = {"x": _n(x), "y": _n(y), "text-anchor": anchor} | ({"class": kind} if kind else {})
        ET.SubElement(self._root, "text", attributes).text = content

    def _add(self, tag: str, kind: str, **numbers: float) -> None:
        ET.SubElement(self._root, tag, {"class": kind} | {key: _n(value) for key, value in numbers.items()})


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to positions between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 4) -> list[float]:
        """Round values within the scale, roughly `about` of them; on a log scale at least two, if there are any."""
        if not self.log:
            return _linear(self.low, self.high, about)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5)):
            found = [10.0**decade * digit for decade in decades for digit in digits]
            found = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            if len(found) >= 3:
                return found[:: -(-len(found) // (about + 2))]
        return found or _linear(self.low, self.high, about)


def spanning(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale for all values, with some margin; logarithmic if they differ much in size."""
    low, high = min(values), max(values)
    if 6 * low < high < 1e12 * low:
        return Scale(low / 1.15, high * 1.15, start, end, log=True)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(low - room if low < 0 or low > room else 0.0, high + room, start, end)


def short(value: float) -> str:
    """A tick's value in as few characters as possible."""
    if value and not 1e-3 <= abs(value) < 1e5:
        digits, _, exponent = f"{value:.3g}".partition("e")
        if not exponent:
            digits, _, exponent = f"{value:.2e}".partition("e")
            digits = digits.rstrip("0").rstrip(".")
        return f"{digits}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


def _linear(low: float, high: float, about: int) -> list[float]:
    if not low < high:
        return [low]
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _n(value: float) -> str:
    """A coordinate; more than two decimals are finer than a screen shows."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
