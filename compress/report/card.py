"""Writes MODEL_CARD.md, for a person who gets the files, from results.json alone."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, cast

from compress.report.choices import agreements, best_sentence, choice_table, choices_of, refusals
from compress.report.constant import no_better
from compress.report.contract import described
from compress.report.headline import conditions, narrowed
from compress.report.load import load_note
from compress.report.samples import worst_class
from compress.report.snippets import snippets
from compress.report.tables import metric_text
from compress.results import (
    CONTRACT,
    Contract,
    Interval,
    NamedTaskValues,
    OwnTaskValues,
    Results,
    StageResult,
    contract_text,
)
from compress.task_words import LOSSES, Word
from compress.wording import count_of

_PARITY: Mapping[Literal["masked_vs_slim", "slim_vs_onnx", "slim_vs_pt2"], str] = {
    "masked_vs_slim": "masked - slim",
    "slim_vs_onnx": "slim - onnxruntime",
    "slim_vs_pt2": "slim - .pt2",
}


def model_card(results: Results) -> str:
    """The card as Markdown. Figures that were not measured are left out, never shown as 0.

    Args:
        results: the content of results.json.
    """
    recipe = results["recipe"]
    sections = {
        f"# {_plain(recipe['name'])}, slim": _what(results),
        "## How it was made": _listed(
            _stage(stage, results["models"]["slim"].get("error", {})) for stage in results["stages"]
        ),
        "## Figures": _figures(results),
        "## The input contract": _contract(results.get("contract")),
        "## How to use it": "\n".join(_usage(*snippet) for snippet in snippets(results)),
        "## Limits": _listed(_limits(results)),
    }
    return "\n".join(f"{title}\n\n{text}" for title, text in sections.items() if text)


def _what(results: Results) -> str:
    model, data = results["recipe"]["model"], results["data"]
    dense, slim = results["models"]["dense"], results["models"]["slim"]
    text = f"A network ({_plain(model.get('name') or model.get('factory') or 'of its own')}) that was pruned and then "
    text += "made physically smaller: "
    text += "".join(
        f"{layer.before:,} {_plain(layer.name)} nodes before, {layer.after:,} now; " for layer in narrowed(results)
    )
    text += f"{dense['params']:,} parameters before, {slim['params']:,} now. "
    text += f"Pruned and measured on {_plain(data['name'])}"
    if "train" in data and "test" in data:
        text += f" ({data['train']:,} training and {count_of(data['test'], 'test sample')})"
    note = f"\n**{_plain(data['note'])}**\n" if "note" in data else ""
    return f"{text}.\n{note}"


def _stage(stage: StageResult, errors: Mapping[str, Interval]) -> str:
    left = {"sparsity": "removed", "params": "of all parameters left", "macs": "of all multiply-adds left"}
    return (
        f"{stage['kind']} of {_plain(stage['target'])}: {_percent(stage['achieved'])} {left[stage['measure']]} "
        f"({_percent(stage['asked'])} asked), chosen by {_plain(stage['criterion']['kind'])}, "
        f"{_plain(stage['removal']['kind'])} removal, {count_of(stage['steps'], 'training step')}; "
        f"{_plain(metric_text(stage['before_removal'], errors))} before removal; "
        f"{_plain(metric_text(stage['after_removal'], errors))} after removal"
    )


def _figures(results: Results) -> str:
    table, task = choice_table(results), results["recipe"]["task"]
    columns = [_heading(column, task) for column in table.columns]
    rows = [[row.label, *("-" if row.refused else cell.text for cell in row.cells)] for row in table.rows]
    lines = ["", *columns], ["---", *["---:"] * len(columns)], *rows
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    best, worst, note = best_sentence(results), worst_class(results), load_note(results.get("load"))
    dense, slim = results["models"]["dense"], results["models"]["slim"]
    more = [
        *([] if best is None else [f"Best is the {_plain(best)}."]),
        *([] if worst is None else [f"{_plain(worst[0].upper() + worst[1:])}."]),
        *(_plain(text) for text in conditions(results)),
        *([] if note is None else [_plain(note)]),
        *(_plain(text) for text in refusals(choices_of(results))),
        *(
            f"Nodes of {_plain(layer.name)}: {layer.before:,} dense, {layer.after:,} slim."
            for layer in narrowed(results)
        ),
        f"Parameters: {dense['params']:,} dense, {slim['params']:,} slim, {slim['nonzero']:,} of them nonzero.",
        f"Multiply-accumulates: {dense['macs']:,} dense, {slim['macs']:,} slim.",
    ]
    return f"{text}\n{_listed(more)}"


def _heading(column: str, task: str | NamedTaskValues | OwnTaskValues) -> str:
    """The heading of a column; what a metric means is in brackets."""
    means: dict[str, str | None]
    if isinstance(task, str):
        means = {"loss": LOSSES.get(cast(Word, task))}
    elif "name" in task:
        means = {"loss": LOSSES[cast(NamedTaskValues, task)["name"]]}
    else:
        means = {"loss": task["loss"], **task["metrics"]}
    meaning = means.get(column.removeprefix("test "))
    return _plain(column) + (f" ({_plain(meaning)})" if meaning else "")


def _limits(results: Results) -> Iterator[str]:
    parity, machine = results["parity"], results["machine"]
    yield "The figures are of one run, with one seed, on one test set; nothing else was tested."
    choices = choices_of(results).values()
    if any("latency_ms" in choice for choice in choices):
        threads = results["recipe"]["benchmark"]["threads"]
        where = f"on {_plain(machine['cpu'])}, {count_of(threads, 'thread')}"
        torch = ", and of torch where a row says so" if any(choice["runtime"] == "torch" for choice in choices) else ""
        yield f"Latency (ms, median) is that of onnxruntime{torch}, {where}; another machine gives other figures."
    if any("peak_memory" in choice for choice in choices):
        yield "Memory is what a fresh process takes to run the file, beyond the imported runtime."
    if (sentence := no_better(results)) is not None:
        yield f"**{_plain(sentence[0].upper() + sentence[1:])}.**"
    yield from (f"{text}." for text in agreements(results))
    proofs = [f"{label} {parity[key]:.1e}" for key, label in _PARITY.items() if key in parity]
    yield f"Largest differences of outputs on the inputs tried: {', '.join(proofs)}."
    if "fresh_process" in parity:
        worst = max(parity["fresh_process"].values(), default=0.0)
        yield f"Each file was read back in a fresh process and compared with its network; they differ by {worst:.1e}."
    for name in parity.get("constant", []):
        yield f"{_plain(name.capitalize())} does not depend on the inputs beyond the tolerance; its proof says nothing."
    yield "Inputs have to be prepared as the training data were: see the input contract."


def _contract(contract: Contract | None) -> str:
    if contract is None:
        return ""
    lines, text = _listed(map(_plain, described(contract))), contract_text(contract)
    return f"{lines}\nEvery file has this in its metadata, under the key `{CONTRACT}`:\n\n```json\n{text}\n```\n"


def _usage(file: str, needs: str, code: str) -> str:
    return f"`{file}`, with {needs}:\n\n```python\n{code}```\n"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _listed(items: Iterable[str]) -> str:
    return "".join(f"- {item}\n" for item in items)


def _plain(name: object) -> str:
    """Text that Markdown shows as it is, in one line: names are from untrusted recipes and files."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in " ".join(str(name).split()))
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", line)
