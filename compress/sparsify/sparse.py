"""`sparse`: Linear layers as CSR matrices where that is measured to be faster, proven to compute the same."""

from collections.abc import Collection
from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.errors import InputError
from compress.evaluation_mode import evaluation_mode
from compress.graph.network import require_unwrapped, uncompiled
from compress.graph.shared_state import SharedState
from compress.graph.twin import copied
from compress.graph.untouched import evaluated_twin
from compress.inputs import Inputs, inputs_of
from compress.options import check
from compress.proof import inputs_like, paired, prove_same
from compress.remove.masks import fold
from compress.sparsify.decisions import SparseLayer, SparseReport
from compress.sparsify.layer import DTYPES, SparseLinear
from compress.sparsify.timing import LAYER_MARGIN, NETWORK_MARGIN, WHOLE, Pair, in_turns, swap

_LEAST_ZEROS = 0.5
"""With fewer zeros a CSR matrix takes more memory than the dense one, and cannot be faster."""

_CONVOLUTIONS = nn.modules.conv._ConvNd


def sparse(model: nn.Module, example: object, batch_size: int = 1, *, tolerance: float = 1e-5) -> nn.Module:
    """Return a copy of `model` for inference on the CPU whose zeros save time, proven to compute the same.

    A Linear layer becomes a `SparseLinear`, with torch's CSR kernels, if this makes it at least a tenth
    faster: measured on this machine, within the network, at this batch size, with torch's current number of threads,
    dense and sparse in turns. All other layers remain dense, convolutions included, because torch has no sparse kernels
    for them. If the whole network is not a twentieth faster, all layers remain dense.

    Pruning masks and parametrizations of Linear layers are folded into the weights of the copy. Its attribute
    `sparse_report` (a `SparseReport`) gives the decision for each layer, and the reason.

    Args:
        example: inputs of the network (see `compress.Inputs`).
        batch_size: the number of samples to measure with; the copy runs with any.
        tolerance: allowed difference relative to how much the output varies over the inputs, as in `slim`.

    Raises:
        InputError: the model is not on the CPU, or does not run on `example`.
        UnsupportedModelError: it is wrapped, scripted, quantized or sharded.
        ProofError: the copy would compute something else.

    Warns:
        ConstantOutputsWarning: the outputs do not depend on the inputs, so that the proof shows nothing.
    """
    model = uncompiled(model)
    require_unwrapped(model)
    check("batch_size", batch_size, int, ge=1)
    check("tolerance", tolerance, float, ge=0)
    _require_cpu(model)
    given = inputs_of(example)
    network = _plain(model)
    report = _measured(network, _batch(given, batch_size))
    network = with_sparse(network, report.converted)
    inputs = [*inputs_like(model, given, sorted({2, 3, batch_size})), paired(given)]
    prove_same(model, network, inputs, tolerance)
    network.sparse_report = report  # type: ignore[assignment]
    return network


def _require_cpu(model: nn.Module) -> None:
    devices = {str(tensor.device) for tensor in (*model.parameters(), *model.buffers())} - {"cpu"}
    if devices:
        raise InputError(f"model: {type(model).__name__} is on {', '.join(devices)}; sparse layers are for model.cpu()")


def _plain(model: nn.Module) -> nn.Module:
    """A copy of which all Linear layers are dense, with plain weights."""
    holder = nn.ModuleList([fold(copied(model))])
    modules = list(holder.modules())
    swap(holder, {module: module.dense() for module in modules if isinstance(module, SparseLinear)})
    swap(holder, {module: _unparametrized(module) for module in modules if _is_parametrized(module)})
    return holder[0]


def _is_parametrized(module: nn.Module) -> TypeGuard[nn.Linear]:
    linear = type(module).__bases__ == (nn.Linear,) and parametrize.is_parametrized(module, "weight")
    return linear and not _has_hooks(module)


def _unparametrized(module: nn.Linear) -> nn.Linear:
    """A new layer: removing its parametrizations would remove them from its class, which the user's network shares."""
    with evaluation_mode(module):  # spectral_norm takes a step at each look during training
        weight, bias = module.weight, module.bias
    linear = nn.Linear(module.in_features, module.out_features, bias is not None, dtype=weight.dtype)
    linear.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return linear.train(module.training)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks or module._backward_hooks)


def with_sparse(network: nn.Module, names: Collection[str]) -> nn.Module:
    """The network with sparse layers in the places of these Linear ones; nothing is measured or proven."""
    layers = [network.get_submodule(name) for name in names]
    holder = nn.ModuleList([network])  # the network itself may be a layer
    swap(holder, {layer: SparseLinear(layer) for layer in layers if isinstance(layer, nn.Linear)})
    return holder[0]


def _batch(given: Inputs, size: int) -> Inputs:
    """Samples of the example, as many as asked for."""
    dims = {id(tensor): given.batch_dim_of(tensor) for tensor in given.tensors}
    places = torch.arange(size) % given.rows

    def samples(tensor: Tensor) -> Tensor:
        dim = dims[id(tensor)]
        return tensor if dim is None else tensor.index_select(dim, places)

    return given.mapped(samples)


def _measured(network: nn.Module, batch: Inputs) -> SparseReport:
    """The decision on each layer, measured on a twin that is thrown away."""
    shared = SharedState(network)
    holder = nn.ModuleList([evaluated_twin(network)])
    try:
        with torch.no_grad():
            layers = {module: _seen(name, module) for name, module in holder[0].named_modules() if _is_listed(module)}
            swaps = {module: SparseLinear(module) for module in layers if not layers[module].why}
            pairs = in_turns(holder, batch, swaps, {module: layers[module].name for module in swaps})
            layers |= {module: _decided(layers[module], pairs) for module in swaps}
            faster = {module: swaps[module] for module in swaps if not layers[module].why}
            whole = in_turns(holder, batch, faster, {})[WHOLE]
    finally:
        shared.set_back()
    dense_ms, sparse_ms = whole.medians
    if not whole.gains(NETWORK_MARGIN):
        layers |= {module: replace(layers[module], why="the network gains too little") for module in faster}
    if all(layer.why for layer in layers.values()):
        sparse_ms = dense_ms
    return SparseReport(tuple(layers.values()), batch.rows, torch.get_num_threads(), dense_ms, sparse_ms)


def _is_listed(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | _CONVOLUTIONS)


def _seen(name: str, module: nn.Module) -> SparseLayer:
    """What is known of a layer before it is measured; `why` where it remains dense anyway."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    zeros = 1.0 - int(weight.count_nonzero()) / max(1, weight.numel())
    why = ""
    if not isinstance(module, nn.Linear):
        why = "convolution"
    elif zeros < _LEAST_ZEROS:
        why = f"less than {_LEAST_ZEROS:.0%} zeros"
    elif type(module) is not nn.Linear:
        why = f"its class is {type(module).__name__}"
    elif _has_hooks(module):
        why = "it has hooks"
    elif weight.dtype not in DTYPES:
        why = f"torch has no CSR kernels for {str(weight.dtype).removeprefix('torch.')}"
    return SparseLayer(name, tuple(weight.shape), zeros, why=why)


def _decided(layer: SparseLayer, pairs: dict[str, Pair]) -> SparseLayer:
    pair = pairs.get(layer.name)
    if pair is None:
        return replace(layer, why="it is not called")
    dense_ms, sparse_ms = pair.medians
    return replace(
        layer, dense_ms=dense_ms, sparse_ms=sparse_ms, why="" if pair.gains(LAYER_MARGIN) else "sparse is not faster"
    )
