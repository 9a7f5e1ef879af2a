"""Targets: which parameters a pattern, a tensor or a (module, name) pair means."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import Tensor, nn

from compress.errors import TargetError

TargetLike = str | Tensor | tuple[nn.Module, str]


@dataclass(frozen=True)
class Target:
    """One parameter of one module; `path` is its qualified name in the model, as in its state_dict."""

    path: str
    module: nn.Module = field(compare=False, repr=False)
    name: str

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.module, self.name)  # type: ignore[no-any-return]


def resolve(model: nn.Module, wanted: Iterable[TargetLike], *, bias: bool = False) -> list[Target]:
    """The parameters that `wanted` means, in its order (a pattern's in the model's own), each once.

    Args:
        wanted: any mix of
            - a shell pattern for qualified parameter names ("decoder.*", "*.weight"): takes weights, that is
              parameters of two or more dimensions, and with `bias=True` biases as well; a name without wildcards
              takes that parameter whatever it is;
            - a parameter itself;
            - a pair (module, name).

    Raises:
        TargetError: something matches nothing, is no parameter of the model, is shared between two modules, or is
            spread over several processes.
    """
    everything = _parameters(model)
    by_path = {target.path: target for target in everything}
    chosen = dict.fromkeys(path for item in wanted for path in _matches(item, everything, bias))
    targets = [by_path[path] for path in chosen]
    _refuse_shared(targets, everything)
    _refuse_sharded(targets)
    return targets


def _parameters(model: nn.Module) -> list[Target]:
    return [
        Target(f"{path}.{name}" if path else name, module, name)
        for path, module in model.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]


def _matches(item: TargetLike, everything: Sequence[Target], bias: bool) -> list[str]:
    if isinstance(item, str):
        found = [target.path for target in everything if _pattern_takes(item, target, bias)]
        if not found:
            raise TargetError(
                f"the pattern {item!r} matches no {'parameter' if bias else 'weight'} of the model; "
                f"its weights are {_listing(everything)}"
            )
        return found
    if isinstance(item, Tensor):
        found = [target.path for target in everything if target.parameter is item]
        if not found:
            raise TargetError(f"a tensor of shape {tuple(item.shape)} was given that is no parameter of the model")
        return found
    module, name = item
    found = [target.path for target in everything if target.module is module and target.name == name]
    if not found:
        raise TargetError(f"{type(module).__name__} has no parameter {name!r}, or is no part of the model")
    return found


def _pattern_takes(pattern: str, target: Target, bias: bool) -> bool:
    if target.path == pattern:
        return True
    if not fnmatchcase(target.path, pattern):
        return False
    return target.parameter.dim() >= 2 or (bias and "bias" in target.name)


def _listing(everything: Sequence[Target], most: int = 12) -> str:
    names = [target.path for target in everything if target.parameter.dim() >= 2]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _refuse_shared(targets: Sequence[Target], everything: Sequence[Target]) -> None:
    owners: dict[int, list[str]] = {}
    for target in everything:
        owners.setdefault(id(target.parameter), []).append(target.path)
    for target in targets:
        paths = owners[id(target.parameter)]
        if len(paths) > 1:
            raise TargetError(
                f"{' and '.join(paths)} are one shared parameter: a mask on one of them would leave the other "
                "unpruned; leave it out of the targets or untie it"
            )


def _refuse_sharded(targets: Sequence[Target]) -> None:
    for target in targets:
        if hasattr(target.parameter, "device_mesh"):  # a DTensor; to import that class would take a while
            raise TargetError(
                f"{target.path} is spread over several processes (FSDP), each of which sees a part of it, so that none "
                "can choose what goes: train with DistributedDataParallel, or prune before or after sharded training"
            )
