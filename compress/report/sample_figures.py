"""The figures of single test samples, as SVG: values, residuals, series and ROC curves of dense and slim."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from compress.report.drawing import Drawing, Scale, short
from compress.report.figures import LEFT
from compress.results import RocPoints
from compress.wording import count_of

WIDTH = 400.0
BINS = 25


def scatter(name: str, target: Sequence[float], outputs: Mapping[str, Sequence[float]]) -> str:
    """Prediction against target, a dot for each sample and network, with the line where they are equal."""
    low, high = _range([*target, *(value for values in outputs.values() for value in values)])
    x, y = Scale(low, high, LEFT, WIDTH - 12), Scale(low, high, 300, 22)
    text = "; ".join(
        f"{label}: mean error {fmean(abs(a - b) for a, b in zip(values, target, strict=True)):.4g}"
        for label, values in outputs.items()
    )
    drawing = Drawing(name, (WIDTH, 336), "Prediction against target", f"{count_of(len(target), 'sample')}; {text}.")
    _axes(drawing, x, y, "prediction", "target")
    drawing.line((x(low), y(low)), (x(high), y(high)), "threshold")
    for label, values in outputs.items():
        for truth, value in zip(target, values, strict=True):
            drawing.dot(x(truth), y(value), f"{label}-dot", 2.4)
    return str(drawing)


def residuals(name: str, target: Sequence[float], outputs: Mapping[str, Sequence[float]]) -> str:
    """Histograms of prediction minus target, a line for each network."""
    found = {
        label: [value - truth for truth, value in zip(target, values, strict=True)] for label, values in outputs.items()
    }
    low, high = _range([*(value for values in found.values() for value in values), 0.0])
    counts = {label: _histogram(values, low, high) for label, values in found.items()}
    x = Scale(low, high, LEFT, WIDTH - 12)
    y = Scale(0, 1.08 * max(max(bins) for bins in counts.values()), 300, 22)
    text = "; ".join(f"{label}: mean {fmean(values):.4g}" for label, values in found.items())
    drawing = Drawing(name, (WIDTH, 336), "Residuals", f"Prediction minus target; {text}.")
    _axes(drawing, x, y, "samples", "prediction minus target")
    drawing.line((x(0), 22), (x(0), 300), "threshold")
    step = (high - low) / BINS
    for label, bins in counts.items():
        edges = [(low + step * (number + side), count) for number, count in enumerate(bins) for side in (0, 1)]
        drawing.path(((x(value), y(count)) for value, count in edges), f"{label}-path")
    return str(drawing)


def series(name: str, lines: Mapping[str, Sequence[float]]) -> str:
    """Lines over the steps of one sample."""
    low, high = _range([value for values in lines.values() for value in values])
    steps = max(2, *(len(values) for values in lines.values()))
    x, y = Scale(1, steps, LEFT, WIDTH - 12), Scale(low, high, 180, 22)
    drawing = Drawing(name, (WIDTH, 216), "A series", f"{count_of(steps, 'step')} of {', '.join(lines)}.")
    _axes(drawing, x, y, "value", "step")
    for label, values in lines.items():
        drawing.path(((x(step), y(value)) for step, value in enumerate(values, 1)), f"{label}-path")
    return str(drawing)


def roc(name: str, curves: Mapping[str, RocPoints]) -> str:
    """The share of anomalies that are found against the share of false alarms, a line for each network."""
    x, y = Scale(0, 1, LEFT, WIDTH - 12), Scale(0, 1, 300, 22)
    text = "; ".join(f"{label} AUROC {points['auroc']:.4f}" for label, points in curves.items())
    drawing = Drawing(name, (WIDTH, 336), "ROC curve", f"{text}.")
    _axes(drawing, x, y, "anomalies found", "false alarms")
    drawing.line((x(0), y(0)), (x(1), y(1)), "threshold")
    for label, points in curves.items():
        both = zip(points["false_alarms"], points["found"], strict=True)
        drawing.path(((x(alarm), y(hit)) for alarm, hit in both), f"{label}-path")
    return str(drawing)


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def _histogram(values: Sequence[float], low: float, high: float) -> list[int]:
    bins = [0] * BINS
    for value in values:
        bins[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    return bins


def _axes(drawing: Drawing, x: Scale, y: Scale, up: str, along: str) -> None:
    for tick in y.ticks():
        drawing.line((x.start, y(tick)), (x.end, y(tick)), "grid")
        drawing.text(x.start - 6, y(tick) + 4, short(tick), "tick", "end")
    drawing.text(2, y.end - 8, up, "tick")
    drawing.line((x.start, y.start), (x.end, y.start), "axis")
    for tick in x.ticks():
        drawing.text(x(tick), y.start + 16, short(tick), "tick", "middle")
    drawing.text(x.end, y.start + 32, along, "tick", "end")
