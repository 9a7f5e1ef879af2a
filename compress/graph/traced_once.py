"""The couplings of a network and of its copies, from one trace."""

from collections.abc import Hashable

from torch import fx, nn

from compress.graph.coupling import Couplings, couplings
from compress.graph.trace import tensors_of
from compress.inputs import inputs_of

Plain = bool | int | float | str


class TracedOnce:
    """The owner of `Couplings` in a run: networks of the same structure are traced once, whatever their weights.

    A network whose structure has changed, because it was slimmed or a layer was put into it, is traced again.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Couplings] = {}

    def couplings(self, model: nn.Module, example: object) -> Couplings:
        """As `compress.graph.coupling.couplings`, which names the errors too."""
        key = (_structure(model), inputs_of(example).signature())
        if key not in self._known:
            self._known[key] = couplings(model, example)
        return self._known[key]


def _structure(model: nn.Module) -> Hashable:
    """Equal for networks with the same modules and settings, and with tensors of the same sizes, tied alike."""
    modules = tuple(
        (name, module.code if isinstance(module, fx.GraphModule) else type(module), _settings(module))
        for name, module in model.named_modules(remove_duplicate=False)
    )
    first: dict[int, str] = {}
    tensors = tuple(
        (name, first.setdefault(id(tensor), name), tensor.shape, tensor.dtype, tensor.device)
        for name, tensor in tensors_of(model).items()
    )
    return modules, tensors


def _settings(module: nn.Module) -> Hashable:
    """Plain attributes, such as `num_heads` and `kernel_size`; the mode is left out, since traces are in evaluation."""
    return tuple(
        (name, value)
        for name, value in vars(module).items()
        if name != "training"
        and (isinstance(value, Plain) or (isinstance(value, tuple) and all(isinstance(one, Plain) for one in value)))
    )
