"""The operators of a network, recorded while it runs once on tensors with sizes and without data.

A run takes some hundredths of a millisecond per operator, since nothing is computed. The batch has `BATCH` rows, a
prime too large for a width: a size follows from the batch if and only if it is a multiple of this prime.
"""

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.dynamic import BATCH_NAME, Dynamic, resized, sizes_of, steps_of, varying_dims
from compress.errors import InputError, UnsupportedModelError
from compress.graph.callers import place_of
from compress.graph.dimensions import BATCH
from compress.graph.following_sizes import FollowingSizes
from compress.graph.network import require_unwrapped
from compress.graph.real_pass import RealPass
from compress.graph.recorder import NeedsValuesError, Recorder, Sized, TooManyOperatorsError
from compress.graph.shared_state import SharedState, shared_state_kept
from compress.graph.untouched import evaluated_twin
from compress.inputs import Inputs, inputs_of

# The largest networks have some thousands; a loop over the rows of a batch would never end.
_MOST_OPERATORS = 50_000
# Sizes for dynamic dimensions are the next primes below; large ones are not taken for a width.
_LARGEST = (10_010, 2_040, 1_020, 510, 250, 120, 60, 30, 14)
_REMAINDERS = (64, 16, 4, 1)


@dataclass(frozen=True)
class Trace:
    """graph: `placeholder` is the input, `get_attr` a tensor by its name, `call_function` an operator of torch.

    Of an operator's node, `meta["val"]` is the result, without data, and `meta["layer"]` the qualified name of the
    module whose code calls it; `meta["varying"]`, if `dynamic` names sizes, has its dimensions that follow from them.
    If its arguments contain the size of the batch, a node computes it.
    constants: tensors of the network's code that are not in its state_dict. Those in the state_dict belong to the
        network, so a trace keeps no weights alive.
    inputs: of every tensor in the example, in the order of `Inputs.tensors`, the node.
    sizes: the number in the trace for each varying size, by name: "batch", and those that `dynamic` names.
    whole: whether the network accepts only all samples of the example; see `Inputs`.
    read: names of the network's own tensors whose values decided what it does, such as a buffer that an `if` compares.
    """

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    inputs: tuple[fx.Node, ...]
    sizes: Mapping[str, int]
    whole: bool
    read: frozenset[str]


def trace(
    model: nn.Module,
    example: object,
    most: int | None = None,
    dynamic: Dynamic | None = None,
    *,
    passes: bool = True,
) -> Trace:
    """Record what `model` does in evaluation mode with a batch of inputs like `example` (see `compress.Inputs`).

    The model does not change, even if it keeps something from each pass. The values of `example` do not matter, except
    for conditions that only raise an error.

    Args:
        most: largest number of operators; a network with more is refused early. 50,000 if absent.
        dynamic: names of dimensions that vary beside the batch (see `compress.dynamic`).
        passes: whether to run a real pass first, to check that the network runs, and another one afterwards, to check
            that it has not changed, if it shares tensors, or anything that has changed, with other networks. Without
            these passes nothing is computed, as is needed for a network that an untrusted file describes.

    Raises:
        InputError: the network does not run on `example`; or `dynamic` does not fit it.
        UnsupportedModelError: its operators depend on values, or on the size of the batch.
    """
    require_unwrapped(model)
    whole = inputs_of(example)
    with shared_state_kept(model) as shared:
        first = RealPass.on_one(model, whole) if passes else None
        given = first.given if first is not None and first.given.whole else whole.few()
        try:
            traced = _traced_at_any(model, given, most or _MOST_OPERATORS, shared, dynamic)
        except UnsupportedModelError as error:
            if first is not None and not first.refusal:
                first = RealPass(model, whole)  # the reason may be that it runs on one sample only
            if first is not None and first.refusal:
                raise InputError(f"{first.refusal}. Besides, it cannot be traced: {error}") from error
            raise
    if first is None:
        return traced
    # A twin cannot change the network; what they share could have changed, or hold tensors with other values.
    if not shared.is_as_before():
        _require_same(first, first.again())
    first.fill_caches()
    return traced


def _traced_at_any(model: nn.Module, given: Inputs, most: int, shared: SharedState, dynamic: Dynamic | None) -> Trace:
    """The trace with the largest sizes of dynamic dimensions that the network accepts, since tables may be short."""
    varying = varying_dims(model, given, dynamic)
    words = dict.fromkeys(word for dims in varying for word in dims.values())
    taken = {size for tensor in tensors_of(model).values() for size in tensor.shape} if words else set()
    refused: UnsupportedModelError | None = None

    def runs(others: Mapping[str, int]) -> bool:
        with suppress(UnsupportedModelError):
            _traced(
                model, resized(given, varying, others), most, shared, {BATCH_NAME: BATCH}, [{}] * len(varying), True
            )
            return True
        return False

    for steps, largest in _tries(sizes_of(given, varying), runs):
        sizes = _sizes(words, largest, taken, steps)
        others = _sizes(words, largest * 3 // 4, taken, steps, sizes) if sizes else None
        if sizes is None or others is None:
            continue  # too many names for sizes this small
        # Libraries avoid branches on values if this flag is set, or else operators that their export does not support.
        for exported in (True, False):
            try:
                following = FollowingSizes(others) if words else None
                if words:
                    with suppress(UnsupportedModelError):
                        _traced(model, given, most, shared, others, varying, exported, following)
                    following = FollowingSizes(sizes, following)
                return _traced(model, given, most, shared, sizes, varying, exported, following)
            except TooManyOperatorsError:
                raise
            except UnsupportedModelError as error:
                refused = refused or error
    assert refused is not None
    raise refused


def _tries(
    example: Mapping[str, int], runs: Callable[[Mapping[str, int]], bool]
) -> Iterator[tuple[Mapping[str, tuple[int, int]], int]]:
    """(step and rest of each size that varies, the largest size) for one trace after the other, until one succeeds.

    Args:
        example: the sizes in the example, by name.
        runs: whether the network takes other sizes.
    """
    yield {}, _LARGEST[0]
    if example:
        steps = steps_of(example, runs)
        found = {name: (step, example[name] % step) for name, step in steps.items()}
        yield from ((found, largest) for largest in _LARGEST)


def _sizes(
    words: Collection[str],
    largest: int,
    taken: Iterable[int],
    steps: Mapping[str, tuple[int, int]],
    like: Mapping[str, int] | None = None,
) -> dict[str, int] | None:
    """A prime for each varying size, which divides no size of a tensor; None if there are too few.

    Args:
        steps: what a size is a multiple of, and the rest, where the network does not take a prime.
        like: other such sizes; with the same remainder as theirs, pictures are padded or resampled in the same places.
    """
    found = {BATCH_NAME: BATCH}
    if not words:  # primes take longer than all the rest of a small network
        return found
    free = [size for size in range(largest, 2, -1) if _is_prime(size) and not any(one % size == 0 for one in taken)]
    for word in words:
        step, rest = steps.get(word, (1, 0))
        own = [step * prime + rest for prime in free if step * prime <= largest]
        alike = (size for by in _REMAINDERS for size in own if like is None or (like[word] - size) % by == 0)
        size = next((size for size in alike if size not in found.values()), None)
        if size is None:
            return None
        found[word] = size
    return found


def _is_prime(number: int) -> bool:
    return all(number % factor for factor in range(2, int(number**0.5) + 1))


def _traced(
    model: nn.Module,
    given: Inputs,
    most: int,
    shared: SharedState,
    sizes: Mapping[str, int],
    varying: Sequence[Mapping[int, str]],
    exported: bool,
    following: FollowingSizes | None = None,
) -> Trace:
    """The trace; nothing references a tensor without data when this returns."""
    recorder = Recorder(most, sizes, shared.watch, following)
    tensors = {tensor: recorder.own_tensor(name, tensor) for name, tensor in tensors_of(model).items()}
    network = evaluated_twin(model, tensors)
    names = given.argument_names(model)
    wanted = _sized(given, sizes, varying)
    entered = {key: recorder.input(name, wanted.argument(key)) for key, name in names.items()}
    call = Inputs([entered[key] for key in range(len(given.args))], {key: entered[key] for key in given.kwargs})
    try:
        with _whole_operators(exported), recorder.following(network), recorder:
            recorder.finish(call.call(network))
    except TooManyOperatorsError:
        raise
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        raise UnsupportedModelError(_refusal(error, recorder)) from error
    inputs, read = recorder.inputs_in(wanted), frozenset(recorder.read)
    return Trace(recorder.graph, recorder.constants, inputs, sizes, given.whole, read)


def _sized(given: Inputs, sizes: Mapping[str, int], varying: Sequence[Mapping[int, str]]) -> Inputs:
    """The arguments with the sizes for the trace."""
    left = iter(varying)

    def bare(tensor: Tensor) -> Sized:
        words, batch = next(left), given.batch_dim_of(tensor)
        shape = list(tensor.shape)
        for dim in range(tensor.ndim):
            if dim == batch or dim in words:
                shape[dim] = sizes[words.get(dim, BATCH_NAME)]
        return Sized(tensor, torch.empty(shape, dtype=tensor.dtype, device="meta"))

    return given.mapped(bare)


def _require_same(before: RealPass, after: RealPass) -> None:
    """Raise UnsupportedModelError unless two passes gave the same outputs, bit for bit."""
    one, other = before.tensors, after.tensors
    if len(one) != len(other) or not all(map(_identical, one, other)):
        raise UnsupportedModelError(
            "The network gives other outputs for the same inputs and random numbers each time it is called"
        )


def _identical(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one.eq(other) | (one.ne(one) & other.ne(other))).all())


@contextmanager
def _whole_operators(exported: bool) -> Iterator[None]:
    """Record composite operators as a whole: `linear`, not its parts.

    Args:
        exported: whether `torch.compiler.is_exporting()` returns True.
    """
    compiler: Any = torch.compiler
    fast = torch.backends.mha.get_fastpath_enabled()
    flags = compiler._is_compiling_flag, compiler._is_exporting_flag
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operators hide the weights
    compiler._is_compiling_flag = compiler._is_exporting_flag = exported
    try:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        compiler._is_compiling_flag, compiler._is_exporting_flag = flags


def _refusal(error: Exception, recorder: Recorder) -> str:
    func, layer = recorder.failed or (None, "")
    places = [f"the operator {func}" if func else "", f"in the layer {layer!r}" if layer else ""]
    where = ", ".join(part for part in (" ".join(filter(None, places)), place_of(error.__traceback__)) if part)
    text, way_out = str(error), ""
    if isinstance(error, NeedsValuesError):
        way_out = "; choose by torch.where instead of `if`, or decide outside of forward"
    elif str(BATCH) in text:  # the number that represents the size of the batch
        text = text.replace(str(BATCH), "N")
        way_out = (
            ", where N is the size of the batch; let the network take batches of any size, or, if its inputs have "
            "another dimension first, give compress.Inputs(args, batch_dim=1)"
        )
    return f"The network cannot be traced: {text}{way_out}" + (f" ({where})" if where else "")


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by qualified name; a tied tensor has all of its names."""
    parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    return {**dict(parameters), **dict(buffers)}
