"""The outcome of a run at a glance, in the terminal: bars for size, time and quality, digits, and one sentence."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO

from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from compress.ranking import MetricKind
from compress.report.choices import LABELS, choices_of
from compress.report.headline import narrowed
from compress.report.measures import changed, error_of, faster, kilobytes, milliseconds, smaller
from compress.report.samples import worst_class
from compress.results import Choice, ChoiceName, ImageResult, Results, ranked_by

SHOWN: Sequence[ChoiceName] = ("dense", "slim", "slim_int8")
WIDTH = 40  # columns of the longest bar
IMAGES = 5  # beside each other in 80 columns
COLUMNS, LINES = 14, 7  # of an image: a character is about twice as high as wide
SHADES, PLAIN_SHADES = " ░▒▓█", " .:*#"


def bars(results: Results) -> Table:
    """Bytes, milliseconds at the first batch size, and what ranks, of dense, slim and slim int8, as far as measured."""
    choices = choices_of(results)
    table = Table(box=None, show_header=False, pad_edge=False)
    for title, figure, form in _measures(choices.values(), ranked_by(results)):
        table.add_row(Text(title, style="bold"))
        found = {name: figure(choices[name]) for name in SHOWN if name in choices}
        largest = max((value for value in found.values() if value is not None), default=0.0)
        for name, value in found.items():
            if value is None:
                table.add_row(f"  {LABELS[name]}", Text("refused" if "refused" in choices[name] else "-", style="dim"))
            else:
                bar = Bar(largest or 1.0, 0, max(0.0, value), width=WIDTH, color="white" if name == "dense" else "cyan")
                table.add_row(f"  {LABELS[name]}", bar, Text(form(value), justify="right"))
    return table


Figure = Callable[[Choice], float | None]


def _measures(choices: Iterable[Choice], ranked: MetricKind) -> Iterator[tuple[str, Figure, Callable[[float], str]]]:
    """A title, the figure of a choice, and the figure as text."""
    yield "size", lambda one: one.get("bytes"), lambda value: f"{kilobytes(value)} KB"
    batch = next((key for one in choices for key in one.get("latency_ms", {})), None)
    if batch is not None:
        yield f"time of a batch of {batch}", lambda one: _latency(one, batch), lambda value: f"{milliseconds(value)} ms"
    yield f"test {ranked.name}", lambda one: one.get("metric", {}).get(ranked.name), ranked.text


def _latency(choice: Choice, batch: str) -> float | None:
    if "latency_ms" not in choice or batch not in choice["latency_ms"]:
        return None
    return choice["latency_ms"][batch]["p50"]


def digits(results: Results, *, unicode: bool = True) -> Iterator[str]:
    """Lines: a few test images as the dense network and as the slim one reconstruct them; none for other tasks."""
    images = results.get("images", [])[:IMAGES]
    shades = SHADES if unicode else PLAIN_SHADES
    for title, entry in (("test images", "input"), ("dense", "dense"), ("slim", "slim")) if images else ():
        yield f"{title}:"
        for line in zip(*(_drawn(image, entry, shades) for image in images), strict=True):
            yield "  " + "  ".join(line).rstrip()


def _drawn(image: ImageResult, entry: str, shades: str) -> list[str]:
    """An image as lines of characters."""
    from PIL import Image  # a report without images does not need it

    found = Image.open(BytesIO(base64.b64decode(image[entry])))  # type: ignore[literal-required]
    grey = found.convert("L").resize((COLUMNS, LINES), Image.Resampling.BOX)
    values = list(grey.tobytes())
    marks = [shades[min(len(shades) - 1, value * len(shades) // 256)] for value in values]
    return ["".join(marks[start : start + COLUMNS]) for start in range(0, len(marks), COLUMNS)]


def gain(results: Results) -> str:
    """One sentence: what the slim network saves against the dense one, and what that costs."""
    dense, slim = (choices_of(results)[name] for name in ("dense", "slim"))
    found = [f"{layer.before:,} to {layer.after:,} {layer.name} nodes" for layer in narrowed(results)]
    changes = [smaller(dense["bytes"], slim["bytes"])] if "bytes" in dense and "bytes" in slim else []
    changes += [faster(1.0, figures["ratio"]) for figures in list(slim.get("latency_ms", {}).values())[:1]]
    found += [change.text for change in changes if change.verdict != "same"]
    what = ", ".join(found) or "as large and as fast as the dense one"
    told = filter(None, [f"The slim network: {what}", _price(dense, slim, ranked_by(results)), worst_class(results)])
    return f"{'; '.join(told)}."


def _price(dense: Choice, slim: Choice, ranked: MetricKind) -> str:
    """The metric that ranks, of both, and the difference."""
    name, before, after = ranked.name, dense["metric"][ranked.name], slim["metric"][ranked.name]
    texts = [
        ranked.text(value, error_of(value, choice.get("error", {}).get(name)))
        for value, choice in ((after, slim), (before, dense))
    ]
    change = changed(ranked, before, after, slim.get("change", {}).get(name))
    return f"test {name} {texts[0]} (dense {texts[1]}, {change})"
