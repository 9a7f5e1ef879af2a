"""What nodes and weights are worth: the error in what layers compute that is left when the others make up for them.

Relative to how much the layer's outputs vary, so that the scores of different layers compare.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compress.errors import InputError
from compress.graph.coupling import Coupling, Member
from compress.graph.trace import Trace, tensors_of
from compress.inputs import Inputs
from compress.select.compensation.fit import in_float, squares_of
from compress.select.compensation.lockstep import LooksUp, Meeting, Reads, meetings
from compress.select.compensation.readers import OwnTensors, Reader

ROWS = 4000
"""Rows of inputs that a layer is looked at with, unless it has many entries."""

_RIDGE = 1e-3  # of the inputs' mean square
_ROUNDS = 128
_UNSEEN = 0.5
"""How often a row of an embedding counts as looked up besides: half a time (Krichevsky and Trofimov, 1981)."""
_LEAST = 1e-30


@torch.no_grad()
def importance_of_weights(model: nn.Module, names: Sequence[str], calls: Sequence[Inputs]) -> list[Tensor]:
    """A score for each entry of the parameters `names`, larger = keep: w^2 / 2 [H^-1]_jj over the outputs' energy.

    Entries of embeddings have their share of the squares that are looked up, those that no adjustable layer uses have
    that of the tensor's squares.

    Raises:
        InputError, UnsupportedModelError: as `meetings`.
    """
    own = OwnTensors(tensors_of(model), None)
    found = {name: _shares(own.named(name).dense) for name in names}
    wanted: dict[int, list[Tensor]] = defaultdict(list)
    for name, scores in found.items():
        wanted[_storage(own.named(name).dense)].append(scores)
    for meeting in meetings(model, own, calls, {}, alone=True):
        stop = meeting.stops[0]
        if isinstance(stop, Reads | LooksUp) and (targets := wanted.get(_storage(stop.weight.pruned))):
            places, scores = _of_layer(meeting, stop.reader) if isinstance(stop, Reads) else _of_table(meeting)
            for target in targets:
                target.view(-1)[places.flatten()] = scores.flatten()
    return [found[name].to(own.named(name).dense.device) for name in names]


@torch.no_grad()
def importance_of_nodes(
    model: nn.Module, coupled: Sequence[Coupling], calls: Sequence[Inputs]
) -> dict[Coupling, Tensor]:
    """A score for each node, larger = keep: of all layers that read it together.

    Nodes are taken away one by one, that with the least error first, and its score is the error that it adds to the
    others'. Nodes that no adjustable layer reads have their share of the writers' squares.

    Raises:
        InputError, UnsupportedModelError: as `meetings`.
    """
    own = OwnTensors(tensors_of(model), None)
    wanted: dict[int, list[tuple[Coupling, Member]]] = defaultdict(list)
    for coupling in coupled:
        for member in coupling.members:
            if member.role == "reads":
                wanted[_storage(own.named(member.tensor).dense)].append((coupling, member))
    seen: dict[Coupling, list[tuple[Tensor, Tensor]]] = {coupling: [] for coupling in coupled}
    for reader, meeting in _read(model, own, calls):
        if not (members := wanted.get(_storage(reader.weight.pruned))):
            continue
        inputs, energy = _seen(meeting, reader)
        places = reader.product.matrix(reader.weight.marks)[:, 0].flatten()
        squares = reader.product.matrix(reader.weight.dense).double().cpu().square().sum(1).flatten()
        for coupling, member in members:
            order = _entries_of_nodes(member, own.named(member.tensor).dense.shape, places)
            if len(order):
                values = inputs.transpose(0, 1).flatten(1)[:, order].reshape(len(inputs[0]), coupling.size, -1)
                worth = squares[order].reshape(coupling.size, -1).sum(1) / energy
                seen[coupling].append((_inverse(values.transpose(1, 2).flatten(0, 1)[None])[0], worth))
    return {
        coupling: _taken_away(found) if found else _shares_of_nodes(coupling, own) for coupling, found in seen.items()
    }


def _of_layer(meeting: Meeting, reader: Reader) -> tuple[Tensor, Tensor]:
    """Numbers of the weight's entries, and their scores, [groups, outputs, entries]."""
    inputs, energy = _seen(meeting, reader)
    matrix = reader.product.matrix(reader.weight.dense).double().cpu()
    scores = matrix.square() / _inverse(inputs).diagonal(dim1=1, dim2=2)[:, None] / energy
    return reader.product.matrix(reader.weight.marks), scores


def _of_table(meeting: Meeting) -> tuple[Tensor, Tensor]:
    """Numbers of an embedding's entries, and their scores, [rows, width].

    An embedding is a layer whose inputs are zeros with a single 1, so H is diagonal: how often each row is looked up.
    """
    seen = [stop for stop in meeting.stops if isinstance(stop, LooksUp)]
    marks, squares = seen[0].weight.marks, seen[0].weight.dense.double().cpu().square()
    ids = torch.cat([stop.ids.flatten().cpu() for stop in seen])
    scores = (ids.bincount(minlength=len(squares)) + _UNSEEN)[:, None] * squares
    return marks, scores / scores.sum().clamp_min(_LEAST)


def _read(model: nn.Module, own: OwnTensors, calls: Sequence[Inputs]) -> Iterator[tuple[Reader, Meeting]]:
    """Each adjustable layer when all batches have come to it."""
    traces: dict[object, Trace] = {}
    for meeting in meetings(model, own, calls, traces, alone=True):
        stop = meeting.stops[0]
        if isinstance(stop, Reads):
            yield stop.reader, meeting


def _seen(meeting: Meeting, reader: Reader) -> tuple[Tensor, float]:
    """Rows of the reader's inputs [groups, rows, entries] on the CPU, and how much its outputs vary."""
    entries = reader.product.matrix(reader.weight.marks).shape[-1]
    parts = list(meeting.rows(reader.product, max(ROWS, 2 * entries)))
    inputs, outputs = (in_float(torch.cat([part[which] for part in parts], dim=1).cpu()) for which in (0, 1))
    if not bool(inputs.isfinite().all()):
        raise InputError("batches: an input of a layer is NaN or infinite there; remove such samples")
    if inputs.shape[1] < 2:
        raise InputError(
            "batches: a layer reads a single row there, which does not show how its outputs vary; give more samples, "
            "or leave out the layer"
        )
    return inputs, max(float(outputs.double().var(dim=1).sum()), _LEAST)


def _inverse(rows: Tensor) -> Tensor:
    """Of how the entries of [groups, rows, entries] vary together, [groups, entries, entries], in float64."""
    mean = rows.mean(1, keepdim=True)
    varies = squares_of(rows - mean).double() / rows.shape[1]
    squares = varies.diagonal(dim1=1, dim2=2) + mean[:, 0].double().square()
    ridge = _RIDGE * squares.mean(1).clamp_min(_LEAST)
    varies.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    inverse: Tensor = torch.cholesky_inverse(torch.linalg.cholesky(varies))
    return inverse


def _entries_of_nodes(member: Member, shape: torch.Size, places: Tensor) -> Tensor:
    """Numbers of the entries that belong to the nodes, those of one node next to each other."""
    nodes = torch.arange(member.size)
    owner = torch.full((shape[member.dim],), -1)
    owner[member.index(nodes)] = nodes.repeat_interleave(member.inner).repeat(member.outer)
    owners = owner[torch.unravel_index(places, shape)[member.dim]]
    return owners.argsort(stable=True)[int((owners < 0).sum()) :]


def _taken_away(seen: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Scores of nodes from what each layer sees of them: the inverse of their products, and their weights' squares.

    Without some nodes, the inverse is that of all less a product of `taken`, which grows by a column for each: the
    factors of a pivoted Cholesky decomposition.
    """
    inverse, worth = torch.stack([one for one, _ in seen]), torch.stack([one for _, one in seen])
    size = worth.shape[1]
    score, alive = torch.zeros(size, dtype=torch.float64), torch.arange(size)
    own, taken = inverse.diagonal(dim1=1, dim2=2).clone(), inverse.new_zeros(len(seen), size, size)
    at_once, highest, count = -(-size // _ROUNDS), torch.zeros((), dtype=torch.float64), 0
    while len(alive):
        errors = (worth[:, alive] / own[:, alive].clamp_min(_LEAST)).sum(0)
        order = errors.argsort(stable=True)
        gone = alive[order[:at_once]]
        score[gone] = errors[order[:at_once]].clamp_min(highest)  # the order in which they are taken away
        highest = score[gone].max()
        alive = alive[order[at_once:].sort().values]
        columns = inverse[:, :, gone] - taken[:, :, :count] @ taken[:, gone, :count].mT
        factor = torch.linalg.cholesky(columns[:, gone])
        columns = torch.linalg.solve_triangular(factor.mT, columns, upper=True, left=False)
        taken[:, :, count : count + len(gone)] = columns
        own, count = own - columns.square().sum(2), count + len(gone)
    return score


def _shares(values: Tensor) -> Tensor:
    squares: Tensor = values.cpu().double().square()
    shares: Tensor = squares / squares.sum().clamp_min(_LEAST)
    return shares


def _shares_of_nodes(coupling: Coupling, own: OwnTensors) -> Tensor:
    writers = [member for member in coupling.members if member.role == "writes"]
    rows = torch.cat([member.matrix(own.named(member.tensor).dense).cpu() for member in writers], dim=1)
    return _shares(rows.double().square().sum(1).sqrt())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
