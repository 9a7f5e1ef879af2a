"""What softprune accepts as a network: modules of plain layers, without wrappers."""

from typing import Any, Final

import torch
from torch import nn

from compress.errors import InputError, UnsupportedModelError
from compress.lazy_layers import first_without_size
from compress.options import shown
from compress.shards import is_fsdp

# By name, since importing these classes takes seconds, and some are of other libraries.
_WRAPPERS: Final = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "AveragedModel": "module",
    "DeepSpeedEngine": "module",
    "_FabricModule": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
}
"""Classes that wrap a network without changing what it computes, with the attribute that contains it."""

_MADE_BY: Final = {"OptimizedModule": "torch.compile", "_FabricModule": "Lightning Fabric"}


def require_network(model: object, what: str = "model", *, sharded: bool = False) -> None:
    """Refuse anything except a network of plain modules.

    Args:
        what: the argument's name, for the error text.
        sharded: whether modules may be sharded over processes by `torch.distributed.fsdp.fully_shard`.

    Raises:
        InputError: it is something else.
        UnsupportedModelError: it is scripted, quantized or sharded, or a lazy layer has never been run.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{what}: found {shown(model)}; expected a network, an object of torch.nn.Module{_hint(model)}"
        )
    if any(issubclass(kind, torch.jit.ScriptModule) for kind in _kinds(model)):
        raise UnsupportedModelError(
            f"{what}: found a scripted network (torch.jit); give the one that it was made from, or one that its class "
            "builds, with load_state_dict(scripted.state_dict())"
        )
    for kind, name in _kinds(model).items():
        if "quantized" in kind.__module__.split("."):
            raise UnsupportedModelError(
                f"{what}: {_part(name)} is quantized ({kind.__module__}.{kind.__name__}), and its "
                "weights are not parameters; give the network from before it was quantized, and quantize the result"
            )
        if "FullyShardedDataParallel" in _bases(kind):
            raise UnsupportedModelError(
                f"{what}: {_part(name)} is sharded over several processes (FSDP) by FullyShardedDataParallel, whose "
                "weights are one flat tensor; shard with torch.distributed.fsdp.fully_shard, or give the whole "
                "network, before or after sharded training"
            )
        if is_fsdp(kind) and not sharded:
            raise UnsupportedModelError(
                f"{what}: {_part(name)} is sharded over several processes (FSDP), each of which has a part of the "
                "weights; give the whole network, before or after sharded training (docs/sharded.md)"
            )
    if (lazy := first_without_size(model)) is not None:
        raise UnsupportedModelError(
            f"{what}: a lazy layer has no size yet ({lazy!r}); run the network once on an example"
        )


def require_unwrapped(model: object, what: str = "model") -> None:
    """As `require_network`; also refuse a wrapper, whose names and calls differ from those of the network inside.

    Raises:
        InputError, UnsupportedModelError: as `require_network`; or it is such a wrapper.
    """
    require_network(model, what)
    assert isinstance(model, nn.Module)
    if wrapper := _wrapper(model):
        raise UnsupportedModelError(
            f"{what}: found {_called(wrapper)} around {_article(type(getattr(model, _WRAPPERS[wrapper])).__name__)}; "
            f"give the network in it, {what}.{_WRAPPERS[wrapper]}, which has the same weights"
        )
    if not any("DataParallel" in _bases(kind) for kind in _kinds(model)):
        return
    for name, module in model.named_modules():
        # Without devices, as on a machine without any, it calls the network in it and nothing else.
        if "DataParallel" in _classes(module) and getattr(module, "device_ids", None):
            raise UnsupportedModelError(
                f"{what}: {_part(name)} is spread over several devices (DataParallel); put the network in it there: "
                f"{what}.{name} = {what}.{name}.module"
            )


def require_parameters(model: object, what: str = "model", *, sharded: bool = False) -> None:
    """As `require_network`; also refuse a network without parameters.

    Raises:
        InputError, UnsupportedModelError: as `require_network`; or there is nothing to prune.
    """
    require_network(model, what, sharded=sharded)
    assert isinstance(model, nn.Module)
    if next(model.parameters(), None) is None:
        raise InputError(
            f"{what}: {type(model).__name__} has no parameters, so there is nothing to prune; layers count only where "
            "they are attributes of the module, or in an nn.ModuleList or nn.ModuleDict"
        )


def uncompiled(model: Any) -> Any:
    """The network that was passed to `torch.compile`, or else `model` itself."""
    return model._orig_mod if "OptimizedModule" in _classes(model) else model


def _wrapper(model: nn.Module) -> str | None:
    found = [name for name, held in _WRAPPERS.items() if name in _classes(model) and hasattr(model, held)]
    return found[0] if found else None


def _kinds(model: nn.Module) -> dict[type, str]:
    """The classes of its modules, each with the name of the first one; a network has few."""
    kinds: dict[type, str] = {}
    for name, module in model.named_modules():
        kinds.setdefault(type(module), name)
    return kinds


def _classes(module: object) -> set[str]:
    return _bases(type(module))


def _bases(kind: type) -> set[str]:
    return {base.__name__ for base in kind.__mro__}


def _called(wrapper: str) -> str:
    maker = _MADE_BY.get(wrapper)
    return f"a wrapper of {maker} ({wrapper})" if maker else _article(wrapper)


def _article(name: str) -> str:
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


def _part(name: str) -> str:
    return f"the layer {name!r}" if name else "the network"


def _hint(found: object) -> str:
    """The remedy for values that people pass instead of a network."""
    if isinstance(found, type) and issubclass(found, nn.Module):
        return f": call the class, {found.__name__}(...)"
    if isinstance(found, torch.export.ExportedProgram):
        return ": program.module() is one"
    if isinstance(found, dict) and found and all(isinstance(value, torch.Tensor) for value in found.values()):
        return ": build the network, then call its load_state_dict with this dict"
    if isinstance(found, str):
        return ": compress.load(path, model=...) makes one from a file"
    if callable(found):
        return ": a function becomes one if the forward of a Module calls it"
    return ""
