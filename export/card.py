"""Writes MODEL_CARD.md, for a person who gets the files, from results.json alone."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from compress.results import Metric, ModelName, ModelResult, OwnTaskValues, Results, StageResult

MODELS: tuple[ModelName, ...] = ("dense", "masked", "slim")

_LOSS = {"reconstruct": "mean squared error per pixel", "classify": "cross-entropy"}

_PARITY: Mapping[Literal["masked_vs_slim", "slim_vs_onnx", "slim_vs_pt2"], str] = {
    "masked_vs_slim": "masked - slim",
    "slim_vs_onnx": "slim - onnxruntime",
    "slim_vs_pt2": "slim - .pt2",
}

_LOADING = {
    "onnx": """\
`slim.onnx`, with onnxruntime alone; any batch size:

```python
import onnxruntime

session = onnxruntime.InferenceSession("slim.onnx")
inputs = {one.name: batch for one in session.get_inputs()}  # batch: numpy array; of several inputs, each its own
output, *others = session.run(None, inputs)  # in the order of session.get_outputs()
```
""",
    "pt2": """\
`slim.pt2`, with torch alone, without the network's source code; any batch size:

```python
import torch

network = torch.export.load("slim.pt2").module()
output = network(batch)  # several tensors by position or by name, as in training
```
""",
    "safetensors": """\
`slim.safetensors`, for training on; `build()` makes the network in its original size:

```python
import compress  # from the package softprune

network = compress.load("slim.safetensors", model=build)
```
""",
}


def model_card(results: Results) -> str:
    """The card as Markdown. Figures that were not measured are left out, never shown as 0.

    Args:
        results: the content of results.json.
    """
    recipe = results["recipe"]
    loading = [text for kind, text in _LOADING.items() if kind in recipe["export"]]
    sections = {
        f"# {_plain(recipe['name'])}, slim": _what(results),
        "## How it was made": _listed(_stage(stage) for stage in results["stages"]),
        "## Figures": _figures(results),
        "## How to load it": "\n".join(loading),
        "## Limits": _listed(_limits(results)),
    }
    return "\n".join(f"{title}\n\n{text}" for title, text in sections.items() if text)


def _what(results: Results) -> str:
    model, data = results["recipe"]["model"], results["data"]
    dense, slim = results["models"]["dense"], results["models"]["slim"]
    text = f"A network ({_plain(model.get('name') or model.get('factory') or 'of its own')}) that was pruned and then "
    text += f"made physically smaller: {dense['params']:,} parameters before, {slim['params']:,} now. "
    text += f"Pruned and measured on {_plain(data['name'])}"
    if "train" in data and "test" in data:
        text += f" ({data['train']:,} training and {data['test']:,} test samples)"
    note = f"\n**{_plain(data['note'])}**\n" if "note" in data else ""
    return f"{text}.\n{note}"


def _stage(stage: StageResult) -> str:
    left = {"sparsity": "removed", "params": "of all parameters left", "macs": "of all multiply-adds left"}
    return (
        f"{stage['kind']} of {_plain(stage['target'])}: {_percent(stage['achieved'])} {left[stage['measure']]} "
        f"({_percent(stage['asked'])} asked), chosen by {_plain(stage['criterion']['kind'])}, "
        f"{_plain(stage['removal']['kind'])} removal, {stage['steps']:,} training steps; "
        f"{_metric(stage['before_removal'])} before removal; {_metric(stage['after_removal'])} after removal"
    )


def _figures(results: Results) -> str:
    rows: dict[str, list[str]] = {}
    for column, name in enumerate(MODELS):
        for label, value in _rows(results["models"][name], results["recipe"]["task"]):
            rows.setdefault(label, ["-"] * len(MODELS))[column] = value
    lines = ["", *MODELS], ["---", *["---:"] * len(MODELS)], *([label, *values] for label, values in rows.items())
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"{table}\nMasked is the pruned network before its zeros were cut out.\n"


def _rows(figures: ModelResult, task: str | OwnTaskValues) -> Iterator[tuple[str, str]]:
    means = {"loss": _LOSS.get(task)} if isinstance(task, str) else {"loss": task["loss"], **task["metrics"]}
    yield "parameters", f"{figures['params']:,}"
    yield "of them nonzero", f"{figures['nonzero']:,}"
    yield "multiply-accumulates", f"{figures['macs']:,}"
    for name, value in figures["metric"].items():
        meaning = f" ({_plain(means[name])})" if means.get(name) else ""
        yield f"test {_plain(name)}{meaning}", f"{value:.4g}"
    for kind, size in figures["bytes"].items():
        yield f"{_plain(kind.replace('_', ', '))}, bytes", f"{size:,}"
    for batch, latency in figures.get("latency_ms", {}).items():
        yield f"latency at batch size {_plain(batch)}, ms (median)", f"{latency['p50']:.3f}"


def _limits(results: Results) -> Iterator[str]:
    parity, machine = results["parity"], results["machine"]
    yield "The figures are of one run, with one seed, on one test set; nothing else was tested."
    if any("latency_ms" in figures for figures in results["models"].values()):
        threads = results["recipe"]["benchmark"]["threads"]
        where = f"on {_plain(machine['cpu'])}, {threads} thread{'s' if threads > 1 else ''}"
        yield f"Latency is that of onnxruntime {where}; another machine gives other figures."
    proofs = [f"{label} {parity[key]:.1e}" for key, label in _PARITY.items() if key in parity]
    yield f"Largest differences of outputs on the inputs tried: {', '.join(proofs)}."
    if "fresh_process" in parity:
        worst = max(parity["fresh_process"].values(), default=0.0)
        yield f"Each file was read back in a fresh process and compared with its network; they differ by {worst:.1e}."
    for name in parity.get("constant", []):
        yield f"{_plain(name.capitalize())} does not depend on the inputs beyond the tolerance; its proof says nothing."
    yield "Inputs have to be prepared as the training data were."


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _metric(metric: Metric) -> str:
    return ", ".join(f"{_plain(name)} {value:.4g}" for name, value in metric.items())


def _listed(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def _plain(name: object) -> str:
    """Text that Markdown shows as it is, in one line: names are from untrusted recipes and files."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(str(name).split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", line)
