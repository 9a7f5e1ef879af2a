"""The results of `compress inspect`, as a table and lines for the terminal."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice

from rich.table import Table
from rich.text import Text

from compress.documents import FileBranches, FileContents, FileNodes, KeptWidth
from compress.report.contract import described
from compress.report.visible import visible
from compress.wording import count_of

SHORT, NAME = 100, 300
"""The most characters shown of a note and of a name; the JSON document has all."""

MOST = 200
"""The most layers and notes shown; the JSON document has all."""


def layers(found: FileContents) -> Table:
    """A row for each layer: its shape, its zeros, its all-zero rows and columns, its multiply-adds."""
    counted = any("macs" in layer for layer in found["layers"])
    table = Table()
    table.add_column("layer", overflow="fold")
    table.add_column("shape")
    for title in ("entries", "zeros", "zero rows", "zero columns", *(["MACs"] if counted else [])):
        table.add_column(title, justify="right")
    for layer in found["layers"][:MOST]:
        shape = visible(" x ".join(str(size) for size in layer["shape"]) or "scalar", SHORT)
        share = layer["zeros"] / max(1, layer["entries"])
        cells = [f"{layer['entries']:,}", f"{share:.1%}"]
        cells += [_part(layer["zero_rows"], layer["rows"]), _part(layer["zero_columns"], layer["columns"])]
        if counted:
            cells.append(f"{layer['macs']:,}" if "macs" in layer else "")
        table.add_row(Text(visible(layer["name"], NAME)), shape, *cells)
    return table


def _part(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" if whole else ""


def summary(found: FileContents, *, whole_recipe: bool = False) -> Iterable[str]:
    """Size, what can be pruned, what `slim` could cut out, and the file's notes."""
    if (hidden := len(found["layers"]) - MOST) > 0:
        yield f"and {count_of(hidden, 'more layer')}: --json shows all of them"
    share = found["zeros"] / max(1, found["entries"])
    yield (
        f"{found['file']}: {found['bytes']:,} bytes, {count_of(found['entries'], 'entry', 'entries')}, "
        f"{share:.1%} of them zero"
    )
    if "macs" in found:
        yield f"MACs: {found['macs']:,} for one sample"
    yield f"weights that can be pruned one by one: {sum(layer['weights'] for layer in found['layers']):,}"
    if "nodes" in found:
        yield from _nodes(found["nodes"])
    if "branches" in found:
        yield from _branches(found["branches"])
    if "graph" in found:
        yield visible(found["graph"])
    if "note" in found:
        yield f"note: {found['note']}"
    read = {"recipe", "contract"} & found.keys()  # what is shown in words below
    notes = {key: text for key, text in found["metadata"].items() if key not in read}
    yield from (f"{visible(key, SHORT)}: {visible(text, SHORT)}" for key, text in islice(notes.items(), MOST))
    if len(notes) > MOST:
        yield f"and {len(notes) - MOST:,} more notes: --json shows all of them"
    if "contract" in found:
        yield "input contract:"
        yield from (f"  {visible(line, NAME)}" for line in described(found["contract"]))
    if "recipe" in found:
        yield "recipe:" if whole_recipe else "recipe, in short (--recipe shows all of it):"
        text = found["recipe"]["whole"] if whole_recipe else found["recipe"]["brief"]
        yield from (f"  {line}" for line in text.splitlines())


def _nodes(nodes: FileNodes) -> Iterable[str]:
    prunable = [f"{one['name']} ({one['nodes']:,})" for one in nodes["prunable"]]
    yield f"nodes that can be pruned: {listed(prunable) or 'none'}"
    yield from widths_kept(nodes["kept"])
    free = [f"{one['cuttable']:,} of {one['name']}" for one in nodes["prunable"] if one["cuttable"]]
    if free:
        yield f"nodes that slim would cut out now: {listed(free)}"


def _branches(branches: FileBranches) -> Iterable[str]:
    yield f"residual branches that can be pruned: {listed(branches['prunable'])}"
    for one in branches["kept"]:
        yield f"keeps the branch at {visible(one['layer'], NAME)}, since {one['reason']}"
    if branches["zero"]:
        yield f"residual branches that slim would take out now: {listed(branches['zero'])}"


def widths_kept(kept: Iterable[KeptWidth]) -> Iterable[str]:
    """The layers that keep their width, a line for each reason."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in kept:
        by_reason[one["reason"]].append(one["layer"])
    for reason, layers in by_reason.items():
        yield f"keeps its width, since {reason}: {listed(layers)}"


def listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(visible(name, NAME) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
