"""MODEL_CARD.md: what a person who gets the files has to know, written from results.json alone."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Results = Mapping[str, Any]

MODELS = ("dense", "masked", "slim")

_LOSS = {"reconstruct": "mean squared error per pixel", "classify": "cross-entropy"}

_PARITY = {
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
(output,) = session.run(["output"], {"input": batch})  # batch: numpy array
```
""",
    "pt2": """\
`slim.pt2`, with torch alone, without the network's source code; any batch size:

```python
import torch

network = torch.export.load("slim.pt2").module()
output = network(batch)
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
    """The card as Markdown. What was not measured is left out, never shown as 0.

    Args:
        results: the content of results.json.
    """
    recipe = results.get("recipe", {})
    loading = [text for kind, text in _LOADING.items() if kind in recipe.get("export", ())]
    sections = {
        f"# {_plain(recipe.get('name', 'a pruned network'))}, slim": _what(results),
        "## How it was made": _listed(_stage(stage) for stage in results.get("stages", ())),
        "## Figures": _figures(results),
        "## How to load it": "\n".join(loading),
        "## Limits": _listed(_limits(results)),
    }
    return "\n".join(f"{title}\n\n{text}" for title, text in sections.items() if text)


def _what(results: Results) -> str:
    recipe, data, models = (results.get(key, {}) for key in ("recipe", "data", "models"))
    model = recipe.get("model", {})
    text = f"A network ({_plain(model.get('name') or model.get('factory') or 'of its own')}) that was pruned and then "
    text += "made physically smaller"
    if {"dense", "slim"} <= models.keys():
        text += f": {models['dense']['params']:,} parameters before, {models['slim']['params']:,} now"
    if "name" in data:
        text += f". Pruned and measured on {_plain(data['name'])}"
    if {"train", "test"} <= data.keys():
        text += f" ({data['train']:,} training and {data['test']:,} test samples)"
    note = f"\n**{_plain(data['note'])}**\n" if "note" in data else ""
    return f"{text}.\n{note}"


def _stage(stage: Mapping[str, Any]) -> str:
    how = f"chosen by {_kind(stage['criterion'])}, {_kind(stage['removal'])} removal, {stage['steps']:,} training steps"
    what = " of ".join(_plain(stage[key]) for key in ("kind", "target") if key in stage)
    left = {"params": "of all parameters left", "macs": "of all multiply-adds left"}
    text = f"{what}: {_percent(stage['achieved'])} {left.get(stage.get('measure', ''), 'removed')} "
    text += f"({_percent(stage['asked'])} asked), {how}"
    metrics = ((key, stage.get(key)) for key in ("before_removal", "after_removal"))
    return text + "".join(f"; {_metric(metric)} {key.replace('_', ' ')}" for key, metric in metrics if metric)


def _figures(results: Results) -> str:
    found = {name: figures for name, figures in results.get("models", {}).items() if name in MODELS}
    if not found:
        return ""
    rows: dict[str, list[str]] = {}
    for column, figures in enumerate(found.values()):
        for label, value in _rows(figures, results.get("recipe", {}).get("task")):
            rows.setdefault(label, ["-"] * len(found))[column] = value
    lines = ["", *found], ["---", *["---:"] * len(found)], *([label, *values] for label, values in rows.items())
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"{table}\nMasked is the pruned network before its zeros were cut out.\n"


def _rows(figures: Mapping[str, Any], task: str | Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    means = {"loss": task["loss"], **task["metrics"]} if isinstance(task, Mapping) else {"loss": _LOSS.get(task or "")}
    for key, label in (("params", "parameters"), ("nonzero", "of them nonzero"), ("macs", "multiply-accumulates")):
        if key in figures:
            yield label, f"{figures[key]:,}"
    for name, value in figures.get("metric", {}).items():
        meaning = f" ({_plain(means[name])})" if means.get(name) else ""
        yield f"test {_plain(name)}{meaning}", f"{value:.4g}"
    for kind, size in figures.get("bytes", {}).items():
        yield f"{_plain(kind.replace('_', ', '))}, bytes", f"{size:,}"
    for batch, latency in figures.get("latency_ms", {}).items():
        yield f"latency at batch size {_plain(batch)}, ms (median)", f"{latency['p50']:.3f}"


def _limits(results: Results) -> Iterator[str]:
    parity, machine, models = (results.get(key, {}) for key in ("parity", "machine", "models"))
    if models:
        yield "The figures are of one run, with one seed, on one test set; nothing else was tested."
    if any("latency_ms" in figures for figures in models.values()):
        threads = results.get("recipe", {}).get("benchmark", {}).get("threads")
        where = f" on {_plain(machine['cpu'])}" if "cpu" in machine else ""
        count = f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
        yield f"Latency is that of onnxruntime{where}{count}; another machine gives other figures."
    proofs = [f"{label} {parity[key]:.1e}" for key, label in _PARITY.items() if key in parity]
    if proofs:
        yield f"Largest differences of outputs on the inputs tried: {', '.join(proofs)}."
    yield "Inputs have to be prepared as the training data were."


def _kind(value: Any) -> str:
    return _plain(value["kind"] if isinstance(value, Mapping) else value)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _metric(metric: Mapping[str, float]) -> str:
    return ", ".join(f"{_plain(name)} {value:.4g}" for name, value in metric.items())


def _listed(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def _plain(name: object) -> str:
    """Text that Markdown shows as it is, in one line: names come from recipes and files of anybody's."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(str(name).split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", line)
