"""docs/zoo.md, made of docs/zoo.json (torchvision) and docs/benchmarks/beyond.json (everything else)."""

import json
from pathlib import Path
from statistics import median

from processes import Row

DOCS = Path(__file__).parents[1] / "docs"
TORCHVISION, BEYOND = DOCS / "zoo.json", DOCS / "benchmarks" / "beyond.json"
KINDS = ("classification", "segmentation", "detection")


Results = dict[str, dict[str, Row]]


def write() -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) if path.exists() else {} for path in (TORCHVISION, BEYOND)]
    DOCS.joinpath("zoo.md").write_text(page(*found), encoding="utf-8")


def page(torchvision: Results, others: Results) -> str:
    """Markdown: how many pass, and a table for each kind of network. Unmeasured networks are left out."""
    lines = ["# Networks, slimmed", ""]
    lines += [
        "Half of every width that can shrink is set to zero and cut. A network passes if its slim network is proven to",
        "compute the same. *The peer* is torch-pruning 1.6.1, with the same networks.",
    ]
    return "\n".join([*lines, "", *first_part(torchvision), "", *second_part(others)]).rstrip() + "\n"


def first_part(results: Results) -> list[str]:
    kinds = {kind: of_kind(results, kind) for kind in KINDS}
    lines = ["## Torchvision's networks", ""]
    lines += [
        "`python benchmarks/zoo.py` measures these networks. Its docstring defines what passes and how time is",
        "measured.",
    ]
    if not any("depends" in parts.get("ours", {}) for parts in results.values()):
        lines += [
            "These figures are from an earlier version. Its analysis ran no real pass, and its batch norms had random",
            "statistics, so the outputs of some networks hardly depended on the image.",
        ]
    missing = sum("ours" not in parts for parts in results.values())
    lines += [f"{missing} of torchvision's {len(results)} networks have not been measured yet."] if missing else []
    lines += ["", *summary(kinds)]
    for kind, rows in kinds.items():
        if rows:
            lines += ["", f"### {kind.capitalize()}", "", *(detection(rows) if kind == "detection" else table(rows))]
    return lines


def of_kind(results: Results, kind: str) -> Results:
    return {name: parts for name, parts in results.items() if parts["kind"] == {"is": kind} and "ours" in parts}


def second_part(results: Results) -> list[str]:
    kinds = dict.fromkeys(parts["kind"]["is"] for parts in results.values())
    lines = ["## Beyond torchvision", ""]
    lines += [
        "Networks of other libraries, in small sizes where the library offers them, and common hand-written networks,",
        "called as their users call them. `benchmarks/networks.py` builds them. `python benchmarks/beyond.py` measures",
        "them, and its docstring defines what passes. Batch norms have the statistics of random batches.",
        "",
    ]
    lines += totals(results)
    for kind in kinds:
        if rows := of_kind(results, kind):
            lines += ["", f"### {kind.capitalize()}", "", *others_table(rows)]
    return lines


def totals(results: Results) -> list[str]:
    rows = [parts for parts in results.values() if "ours" in parts]
    good = [parts["ours"] for parts in rows if parts["ours"]["pass"]]
    own = sum(not row["traced"] for row in good)
    lines = [f"- softprune: {len(good)} of {len(rows)} networks pass; {own} of them keep their class."]
    tried = [parts for parts in rows if "peer" in parts]
    if tried:
        theirs, mine = (sum(parts[part]["pass"] for parts in tried) for part in ("peer", "ours"))
        lines += [f"- torch-pruning: {theirs} of {len(tried)} pass. softprune passes {mine} of the same {len(tried)}."]
    lengths = [row["length"] for row in good if row["length"] is not None]
    same = sum(isinstance(length, float) and length <= 1e-4 for length in lengths)
    wrong = sum(isinstance(length, float) and length > 1e-4 for length in lengths)
    refused = len(lengths) - same - wrong
    lines += [
        f"- Other lengths: of {len(lengths)} slim networks whose dense network accepts them, {same} compute the same,",
        f"  {wrong} compute something else, and {refused} {'refuses' if refused == 1 else 'refuse'} with a reason.",
        f"- Training: {sum(row['trains'] is True for row in good)} of {len(good)} have a lower loss after one step.",
    ]
    converted = [parts["onnx"] for parts in rows if "onnx" in parts]
    if converted:
        same, neither = sum(row["pass"] for row in converted), sum("dense_error" in row for row in converted)
        lines += [f"- ONNX: {same} of {len(converted)} compute the same in onnxruntime.{also_dense(neither)}"]
    return lines + dependence(rows) + pace(rows)


def others_table(results: Results) -> list[str]:
    heads = ["network", "parameters", "removed", "result", "analysis cold", "warm", "ONNX", "other length", "trains"]
    heads += ["peer: removed", "peer: cold", "warm", "largest kept part, and why"]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|--:|---|--:|--:|--:|--:|---|--:|--:|--:|---|"]
    for name, parts in results.items():
        mine, other = parts["ours"], parts.get("peer", {})
        cells = [name, size(mine), gone(mine), result(mine), seconds(mine), seconds(mine, "warm_seconds")]
        cells += [parity(parts.get("onnx", {})), length(mine), "yes" if mine.get("trains") is True else ""]
        cells += [gone(other), seconds(other), seconds(other, "warm_seconds"), largest_kept(mine)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def length(row: Row) -> str:
    """The difference at another length, or "fixed" if the graph holds for one length only."""
    found = row.get("length")
    return "" if found is None else f"{found:.0e}" if isinstance(found, float) else "fixed"


def largest_kept(row: Row) -> str:
    reason, share = next(iter(row.get("kept", [])), ("", 0.0))
    return f"{share:.0%}: {reason.replace('|', '/')}" if share >= 0.05 else ""


def result(row: Row) -> str:
    return "" if "traced" not in row else "graph" if row["traced"] else "class"


def summary(kinds: dict[str, Results]) -> list[str]:
    said = {
        "ours": "{kind}: {good} of {all} networks pass with softprune",
        "peer": "{kind}: {good} of {all} networks pass with torch-pruning",
        "backbone": "{kind}, the backbone alone: {good} of {all} networks pass with softprune",
    }
    lines = []
    for kind, rows in kinds.items():
        for part, text in said.items():
            tried = [parts[part]["pass"] for parts in rows.values() if part in parts]
            if tried:
                lines.append(f"- {text.format(kind=kind.capitalize(), good=sum(tried), all=len(tried))}.")
    converted = [parts["onnx"] for rows in kinds.values() for parts in rows.values() if "onnx" in parts]
    if converted:
        good, neither = sum(row["pass"] for row in converted), sum("dense_error" in row for row in converted)
        text = f"- ONNX: {good} of {len(converted)} slim classifiers compute the same in onnxruntime."
        lines.append(text + also_dense(neither))
    every = [parts for rows in kinds.values() for parts in rows.values()]
    return lines + dependence(every) + pace(every)


def also_dense(neither: int) -> str:
    """A sentence about networks whose dense version cannot be exported either."""
    if not neither:
        return ""
    return f" In {neither} case{'s' if neither > 1 else ''} the dense network cannot be exported either."


def dependence(rows: list[dict[str, Row]]) -> list[str]:
    """How much the outputs of two inputs differ: a proof is worth more where they differ more."""
    found = [parts["ours"]["depends"] for parts in rows if "depends" in parts["ours"]]
    if not found:
        return []
    return [
        f"- Dependence on the input: outputs of two random inputs differ by {median(found):.1g} of their scale",
        f"  (median of {len(found)} networks), and by at least {min(found):.1g}, since batch norms have the statistics",
        "  of random inputs.",
    ]


def pace(rows: list[dict[str, Row]]) -> list[str]:
    seconds = [[parts.get(part, {}).get("analysis_seconds") for part in ("ours", "peer")] for parts in rows]
    ratios = [mine / other for mine, other in seconds if mine and other]
    if not ratios:
        return []
    slowest = max(mine for mine, _ in seconds if mine)
    quicker = sum(ratio <= 1 for ratio in ratios)
    return [
        f"- Analysis: it takes {median(ratios):.2f} times as long as torch-pruning's (median of {len(ratios)}",
        f"  networks). {quicker} of them take no longer, and the largest ratio is {max(ratios):.1f}.",
        f"  softprune takes {slowest:.2f} s at most.",
        "  The clock of processor time may tick in milliseconds, which matters for small networks.",
    ]


def table(rows: Results) -> list[str]:
    onnx = any("onnx" in parts for parts in rows.values())
    heads = ["network", "parameters", "removed", "analysis", "result", *(["ONNX"] if onnx else [])]
    heads += ["peer: removed", "peer: analysis"]
    explained = [
        "- *result*: *class* is an instance of the network's own class. *graph* is the traced graph, if the class has",
        "  sizes in its code.",
    ]
    if onnx:
        explained += ["- *ONNX*: the largest difference between onnxruntime and torch, or why there is none."]
    lines = [*explained, "", f"| {' | '.join(heads)} |", "|---|--:|--:|--:|---|" + "--:|" * (len(heads) - 5)]
    for name, parts in rows.items():
        mine, other = parts["ours"], parts.get("peer", {})
        cells = [name, size(mine), gone(mine), seconds(mine), result(mine)]
        cells += [parity(parts.get("onnx", {}))] if onnx else []
        lines.append(f"| {' | '.join([*cells, gone(other), seconds(other)])} |")
    return lines


def detection(rows: Results) -> list[str]:
    reasons = {parts["ours"].get("error", "").partition(": ")[2] for parts in rows.values()} - {""}
    lines = [f"The error for a network as a whole: {reason}." for reason in sorted(reasons)]
    lines += [
        "",
        "The next part of a detector receives only parts of an image, such as the remaining boxes. Which ones depends",
        "on values, which a trace does not have. The backbone computes features from images, and you can slim it",
        "separately; its outputs are kept: `model.backbone = compress.slim(model.backbone, images)`.",
        "",
        "| network | parameters | of its backbone | of these removed | analysis |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, parts in rows.items():
        mine = parts.get("backbone", {})
        whole = f"{mine['whole'] / 1e6:.1f} M" if "whole" in mine else ""
        lines.append(f"| {' | '.join([name, whole, size(mine), gone(mine), seconds(mine)])} |")
    return lines


def size(row: Row) -> str:
    return f"{row['params'] / 1e6:.1f} M" if "params" in row else ""


def seconds(row: Row, key: str = "analysis_seconds") -> str:
    return f"{row[key]:.2f} s" if key in row else ""


def parity(row: Row) -> str:
    if not row:
        return ""
    if row["pass"]:
        return f"{row['difference']:.0e}"
    return f"{'neither is the dense one: ' if 'dense_error' in row else ''}{row['error'].replace('|', '/')[:80]}"


def gone(row: Row) -> str:
    if not row:
        return ""
    if "gone" not in row:
        return f"failed: {row['error'].replace('|', '/')[:80]}"
    return f"{row['gone']:.0%}" + ("" if row["pass"] else " (fails)")
