"""What `compress quantize` prints: every kind of int8 that was tried, and what was kept."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from compress.documents import QuantizedFile
from compress.report.measures import smaller
from compress.report.tables import metric_text
from compress.report.visible import visible
from compress.results import Agreement, QuantizationTrial


def tried(found: QuantizedFile) -> Table:
    """The float file and its candidates: bytes, metric on held-out samples, and time; what is kept is bold."""
    entry = found["quantization"]
    sizes = list(dict.fromkeys(batch for trial in entry["tried"] for batch in trial.get("latency_ms", {})))
    table = Table(title="on held-out samples; times are of the float file's")
    for title in ("", "bytes", "metric", *(f"batch {batch}" for batch in sizes)):
        table.add_column(title, justify="right" if title not in ("", "metric") else "left", overflow="fold")
    table.add_row("float", f"{found['source_bytes']:,}", metric_text(entry["float_metric"]), *("1.00" for _ in sizes))
    for trial in entry["tried"]:
        kept = (trial["kind"], trial.get("method")) == (entry.get("kind"), entry.get("method"))
        failed = ["-", visible(trial.get("note", "")), *("-" for _ in sizes)]
        cells = _figures(trial, sizes) if "bytes" in trial else failed
        table.add_row(*(Text(cell, style="bold" if kept else "") for cell in (name(trial), *cells)))
    return table


def name(trial: QuantizationTrial) -> str:
    return f"{trial['kind']} ({trial['method']})" if "method" in trial else trial["kind"]


def _figures(trial: QuantizationTrial, sizes: Iterable[str]) -> list[str]:
    ratios = {batch: figures["ratio"] for batch, figures in trial["latency_ms"].items()}
    return [f"{trial['bytes']:,}", metric_text(trial["metric"]), *(f"{ratios[batch]:.2f}" for batch in sizes)]


def lines(found: QuantizedFile) -> Iterable[str]:
    """The file that was written, why it is that one, and how far it is from the float file; or nothing."""
    if "file" in found:
        yield f"{found['file']}: {found['bytes']:,} bytes, {smaller(found['source_bytes'], found['bytes'])}"
        yield found["quantization"]["why"]
        yield f"It is not equal to the float file: {agreement(found['agreement'])}"


def agreement(found: Agreement) -> str:
    same = f"the same class for {found['equal']:.2%} of the samples, and " if "equal" in found else ""
    return f"{same}outputs that differ by {found['mean']:.2g} on average and by {found['largest']:.2g} at most"
