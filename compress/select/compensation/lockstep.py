"""The dense and the pruned network, run side by side over a trace, all batches at once, operator by operator.

Where an operator reads nodes, all batches have been seen up to it, in both networks. So its weights are fitted once,
and what follows sees the network as it will be: one pass is enough for all layers.
"""

from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from compress.errors import InputError
from compress.graph.flow import arguments_of
from compress.graph.names import name_of
from compress.graph.trace import Trace, trace
from compress.inputs import Inputs
from compress.select.compensation import windows
from compress.select.compensation.fit import in_float
from compress.select.compensation.missing import Missing, before_scales
from compress.select.compensation.readers import Own, OwnTensors, Reader, readers, source_of, used_once
from compress.select.compensation.windows import Product

_CACHED = 2**18
"""Numbers that a processor's cache holds."""

RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class Sides(NamedTuple):
    """A value in the dense and in the pruned network."""

    dense: Any
    pruned: Any


@dataclass(frozen=True)
class Reads:
    """A batch has come to a reader, and waits until its weights are fitted.

    inputs: what it reads in the pruned network. wanted: what it is to give: the same as in the dense network, and at
        the end of a branch what the stream lacks, for it to be again what it was before others were removed.
    differs: whether a branch is missing before it. as_dense: whether `inputs` and `wanted` are the dense network's.
    """

    reader: Reader
    inputs: Tensor
    wanted: Tensor
    differs: bool = False
    as_dense: bool = False

    @property
    def weight(self) -> Own:
        return self.reader.weight

    @property
    def key(self) -> Hashable:
        return self.weight.key


@dataclass(frozen=True)
class Normalizes:
    """A batch has come to a norm with running statistics."""

    mean: Own
    variance: Own
    values: Sides

    @property
    def key(self) -> Hashable:
        return self.mean.key


@dataclass(frozen=True)
class LooksUp:
    """A batch has come to an embedding, of which it takes the rows `ids`."""

    weight: Own
    ids: Tensor

    @property
    def key(self) -> Hashable:
        return self.weight.key


@dataclass(frozen=True)
class Ends:
    """A batch has come to the outputs: all tensors in them."""

    values: Sides

    @property
    def key(self) -> Hashable:
        return "outputs"


Stop = Reads | Normalizes | LooksUp | Ends


@dataclass(frozen=True)
class Meeting:
    """All batches have come to the same operator, the `number`-th that they wait at.

    shares: each batch's share of the samples.
    """

    number: int
    stops: Sequence[Stop]
    shares: Sequence[float]

    def rows(self, product: Product, most: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What a reader sees [groups, rows, entries] and is to give for it [groups, rows, outputs].

        Some batches at a time, for at least as many rows as entries where there are so many.

        Args:
            most: rows of all batches together; more are drawn from.
        """
        inputs: list[Tensor] = []
        wanted: list[Tensor] = []
        for place, stop in enumerate(self.stops):
            assert isinstance(stop, Reads)
            inputs.append(product.rows(stop.inputs, *self._drawn(place, most)))
            wanted.append(product.outputs(stop.wanted, *self._drawn(place, most)))
            if sum(one.shape[1] for one in inputs) >= inputs[0].shape[2] or place == len(self.stops) - 1:
                yield _joined(inputs), _joined(wanted)
                inputs, wanted = [], []

    def _drawn(self, place: int, most: int) -> tuple[int, torch.Generator]:
        """(rows of the batch at `place`, what draws them)"""
        chance = torch.Generator().manual_seed(10_000 * self.number + place)
        return max(1, round(most * self.shares[place])), chance

    def statistics(self, side: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel over all batches, added up in float64 where the device has it."""
        parts = [_by_samples(stop.values[side]) for stop in self.stops if isinstance(stop, Normalizes)]
        means, within = torch.cat([own for own, _, _ in parts]), torch.cat([own for _, own, _ in parts])
        kind = torch.float32 if means.device.type == "mps" else torch.float64
        counts = torch.cat([torch.full((len(own),), float(size), dtype=kind) for own, _, size in parts])
        weights, means, within = (counts / counts.sum()).to(means.device), means.to(kind), within.to(kind)
        mean = weights @ means
        return mean, weights @ (within + (means - mean).square())

    def error(self) -> float:
        """Of the outputs: the mean square of what changed, relative to how much they vary."""
        changed, varies = 0.0, 0.0
        for stop, share in zip(self.stops, self.shares, strict=True):
            assert isinstance(stop, Ends)
            for dense, pruned in zip(*stop.values, strict=True):
                if isinstance(dense, Tensor) and dense.is_floating_point() and dense.numel() > 1:
                    dense, pruned = dense.float(), pruned.float()
                    scale = float(dense.var(correction=0)) or 1.0
                    changed += share * float((pruned - dense).square().mean()) / scale
                    varies += share
        return changed / varies if varies else 0.0


def meetings(
    model: nn.Module,
    tensors: OwnTensors,
    calls: Sequence[Inputs],
    traces: MutableMapping[Hashable, Trace],
    *,
    alone: bool = False,
    branches: Collection[str] = (),
) -> Iterator[Meeting]:
    """Run all batches through both networks; at each meeting, weights may change before the operator runs.

    Args:
        traces: of the network, by the signatures of calls; missing ones are added.
        alone: whether nothing is pruned, and the dense network runs alone.
        branches: names of the residual branches that the pruned network lacks.

    Raises:
        InputError: there is no batch, or batches take different ways through the network.
        UnsupportedModelError: the network cannot be traced.
    """
    if not calls:
        raise InputError("batches: there is no sample in them, and weights are fitted to samples")
    plans: dict[Hashable, Plan] = {}
    for given in calls:
        key = given.signature()
        if key not in plans:
            traces[key] = traces.get(key) or trace(model, given)
            missing = Missing.of(model, traces[key], branches) if branches else Missing()
            plans[key] = Plan(traces[key], tensors, missing, alone=alone)
    samples = sum(given.rows for given in calls)
    shares = [given.rows / samples for given in calls]
    walks = [stops(plans[given.signature()], given) for given in calls]
    for number, met in enumerate(zip_longest(*walks)):
        if any(stop is None or stop.key != met[0].key for stop in met):
            raise InputError(
                "batches: the network takes different ways for batches of different sizes; give batches of one size"
            )
        yield Meeting(number, met, shares)


class Plan:
    """What is known of a trace before it is run."""

    def __init__(self, traced: Trace, tensors: OwnTensors, missing: Missing, *, alone: bool = False) -> None:
        """alone: whether nothing is pruned, and the dense network runs alone."""
        self.traced, self.tensors, self.missing, self.alone = traced, tensors, missing, alone
        self.seen = tensors.seen(traced)
        self.once = used_once(traced, self.seen)
        free = {node: one for node, one in readers(traced, self.seen).items() if one.is_free(self.once)}
        self.readers = {node: one for node, one in free.items() if node not in missing.inside}
        self.ends = {way[0]: (stream, way) for stream, way in missing.ways if way[0] in self.readers}
        self.last = _last_uses(traced.graph)

    def both(self, dense: Callable[[], Any], pruned: Callable[[], Any]) -> Sides:
        """What is computed in each of the two networks."""
        found = dense()
        return Sides(found, found if self.alone else pruned())

    def own(self, node: fx.Node) -> Sides:
        name = str(node.target)
        if name in self.tensors.of:
            return Sides(self.tensors.of[name].dense, self.tensors.of[name].pruned)
        return Sides(self.traced.constants[name], self.traced.constants[name])


def stops(plan: Plan, given: Inputs) -> Iterator[Stop]:
    """Run one batch through both networks; a reader's operator runs when the next stop is asked for."""
    values: dict[fx.Node, Sides] = {}
    more: dict[fx.Node, Tensor | None] = {}
    for node, tensor in zip(plan.traced.inputs, given.tensors, strict=True):
        values[node] = plan.both(tensor.clone, tensor.clone)  # operators in place write into them
    for node in plan.traced.graph.nodes:
        if node.op == "output":
            yield Ends(Sides(*([values[one][side] for one in node.all_input_nodes] for side in (0, 1))))
            return
        if node.op == "get_attr":
            values[node] = plan.own(node)
        elif node in plan.missing.inside:
            values[node] = Sides(_computed(node, values, 0), None)
        elif node in plan.missing.joins:
            stream = values[plan.missing.joins[node]].pruned
            values[node] = Sides(_computed(node, values, 0), stream.clone())  # operators in place write into it
        elif node.op == "call_function":
            if name_of(node) == "batch_norm" and (stop := _norm(plan, node, values, more)) is not None:
                yield stop
            if node in plan.readers:
                values[node] = yield from _read(plan, node, values, more)
            elif name_of(node) in RECURRENT:
                values[node] = yield from _recurrent(plan, node, values)
            else:
                values[node] = plan.both(partial(_computed, node, values, 0), partial(_computed, node, values, 1))
            if plan.alone and name_of(node) == "embedding" and (looks_up := _looks_up(plan, node, values)) is not None:
                yield looks_up
        for done in plan.last.get(node, ()):
            values.pop(done, None)


def _read(
    plan: Plan, node: fx.Node, values: Mapping[fx.Node, Sides], more: MutableMapping[fx.Node, Tensor | None]
) -> Generator[Stop, None, Sides]:
    """The reader is adjusted between the two networks' turns; what it was to give besides is noted in `more`."""
    dense = _computed(node, values, 0)
    missing = more[node] = _more(plan, node, values, dense)
    wanted = dense if missing is None else dense + missing
    source = values[source_of(node)]
    as_dense = missing is None and torch.equal(source.dense, source.pruned)
    yield Reads(plan.readers[node], source.pruned, wanted, node in plan.missing.differ, as_dense)
    return plan.both(lambda: dense, partial(_computed, node, values, 1))


def _looks_up(plan: Plan, node: fx.Node, values: Mapping[fx.Node, Sides]) -> LooksUp | None:
    given = arguments_of(node)
    weight = plan.seen.get(given["weight"])
    return LooksUp(weight, values[given["indices"]].dense) if weight is not None and weight.key in plan.once else None


def _computed(node: fx.Node, values: Mapping[fx.Node, Sides], side: int) -> Any:
    function: Any = node.target
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda one: values[one][side])
    return function(*args, **kwargs)


def _norm(
    plan: Plan, node: fx.Node, values: Mapping[fx.Node, Sides], more: Mapping[fx.Node, Tensor | None]
) -> Normalizes | None:
    """With what the layer before it was to give besides."""
    given = arguments_of(node)
    mean, variance = (plan.seen.get(given[key]) for key in ("running_mean", "running_var"))
    if given["training"] or mean is None or variance is None:
        return None
    source, missing = values[given["input"]], more.get(given["input"])
    return Normalizes(mean, variance, source if missing is None else Sides(source.dense + missing, source.pruned))


def _more(plan: Plan, node: fx.Node, values: Mapping[fx.Node, Sides], dense: Tensor) -> Tensor | None:
    """At the end of a branch, what its last layer is to give besides, for the stream to be as in the dense network."""
    stream, way = plan.ends.get(node, (None, ()))
    if stream is None or stream not in values:
        return None
    gap = values[stream].dense - values[stream].pruned
    if not bool(gap.any()):
        return None
    return before_scales(lambda own: _through(way, own, values), dense, gap)


def _through(way: Sequence[fx.Node], own: Tensor, values: Mapping[fx.Node, Sides]) -> Tensor:
    """What the operators of a way make of the value `own` at its start."""
    now: dict[fx.Node, Any] = {}

    def given(node: fx.Node) -> Any:
        return now[node] if node in now else values[node].dense

    for before, node in pairwise(way):
        now[before] = own
        function: Any = node.target
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), given)
        own = function(*args, **kwargs)
    return own


def _joined(rows: Sequence[Tensor]) -> Tensor:
    return rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=1)


def _by_samples(values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Means and variances [samples, channels] of the positions of each sample, and how many positions there are.

    Torch's variances take several times as long as differences from the mean of parts that fit into the cache.
    """
    values = values.flatten(2) if values.ndim > 2 else values[..., None]
    means, variances = [], []
    for part in torch.split(values, max(1, _CACHED // values[0].numel())):
        part = in_float(part)
        means.append(part.mean(2))
        variances.append((part - means[-1][..., None]).square_().mean(2))
    return torch.cat(means), torch.cat(variances), values.shape[2]


def _last_uses(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For each node, the nodes whose values nothing needs after it."""
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        last = node
        for user in node.users:
            last = max(last, user)
        found.setdefault(last, []).append(node)
    return found


def _recurrent(plan: Plan, node: fx.Node, values: Mapping[fx.Node, Sides]) -> Generator[Stop, None, Sides]:
    """Layer by layer, so that the inputs of each are seen; the weights of the states see those of the dense network."""
    given = arguments_of(node)
    packed = "batch_sizes" in given
    source = values[given["data" if packed else "input"]]
    states: Sequence[fx.Node] = given["hx"] if isinstance(given["hx"], list | tuple) else [given["hx"]]
    ways, each = 2 if given["bidirectional"] else 1, 4 if given["has_biases"] else 2
    last: list[Sides] = []
    for layer in range(given["num_layers"]):
        own = given["params"][layer * ways * each : (layer + 1) * ways * each]
        of_ways = [own[way * each : (way + 1) * each] for way in range(ways)]
        begin = [Sides(*(side[layer * ways : (layer + 1) * ways] for side in values[state])) for state in states]
        sizes = _sizes(values, given) if packed else None

        weights = Sides(*([values[one][side] for one in own] for side in (0, 1)))
        run = partial(_layer, node, given, sizes)

        for one in of_ways:
            yield from _gates(plan, one, 0, source)
        dense = run(source.dense, [one.dense for one in begin], weights.dense)
        for way, one in enumerate(of_ways if not packed else ()):
            before = _states_before(dense[0], begin[0].dense[way], way, ways, batch_first=given["batch_first"])
            yield from _gates(plan, one, 1, Sides(before, before))
        pruned = dense if plan.alone else run(source.pruned, [one.pruned for one in begin], weights.pruned)
        source = Sides(dense[0], pruned[0])
        last.append(Sides(dense[1:], pruned[1:]))
    ends = [[torch.cat([layer[side][place] for layer in last]) for place in range(len(states))] for side in (0, 1)]
    return Sides((source.dense, *ends[0]), (source.pruned, *ends[1]))


def _sizes(values: Mapping[fx.Node, Sides], given: Mapping[str, Any]) -> Any:
    """How many sequences have each step, which no weight changes."""
    return values[given["batch_sizes"]].dense


def _gates(plan: Plan, own: Sequence[fx.Node], which: int, values: Sides) -> Iterator[Reads]:
    """The weights of the inputs (0) or of the states (1), where they are the network's own."""
    weight, bias = plan.seen.get(own[which]), plan.seen.get(own[which + 2]) if len(own) == 4 else None
    if weight is not None and (bias is not None or len(own) == 2):
        reader = Reader(weight, bias, windows.linear(weight.dense))
        if reader.is_free(plan.once):
            wanted = nn.functional.linear(values.dense, weight.dense, None if bias is None else bias.dense)
            yield Reads(reader, values.pruned, wanted, as_dense=torch.equal(values.dense, values.pruned))


def _layer(
    node: fx.Node, given: Mapping[str, Any], sizes: Any, source: Tensor, states: list[Tensor], own: list[Tensor]
) -> Any:
    """One layer of the operator."""
    function: Any = node.target
    hx: Any = states if isinstance(given["hx"], list | tuple) else states[0]
    inputs, batch_first = ((source,), (given["batch_first"],)) if sizes is None else ((source, sizes), ())
    return function(*inputs, hx, own, given["has_biases"], 1, 0.0, False, given["bidirectional"], *batch_first)


def _states_before(outputs: Tensor, begin: Tensor, way: int, ways: int, *, batch_first: bool) -> Tensor:
    """The state that each step of a layer starts from, in one direction."""
    own = outputs.chunk(ways, dim=-1)[way]
    steps = 1 if batch_first else 0
    first = begin.unsqueeze(steps)
    if way:  # from the end to the start
        return torch.cat([own.narrow(steps, 1, own.shape[steps] - 1), first], dim=steps)
    return torch.cat([first, own.narrow(steps, 0, own.shape[steps] - 1)], dim=steps)
