"""`Shaping`: attributes of the samples are kept in a latent space, or dropped from it, while nodes are pruned.

A wanted attribute has a head, a linear layer on the remaining nodes, that learns it together with the network. It is
given codes of unit scale, so that the network gains nothing by longer codes, which would cost the task. An
unwanted one has an adversary that learns it as well as it can from the remaining nodes, while its gradient reaches the
network reversed (Ganin et al., "Domain-adversarial training of neural networks", 2016); beside it, the network lowers
a measure of dependence between the nodes and the classes that has a closed form. Heads and adversaries have their own
optimizers, and no part in the network.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.batches import Attributed
from compress.errors import InputError
from compress.options import check, shown
from compress.remove.pruner import Pruner
from compress.tasks import Loss
from compress.tasks.outputs import prediction
from compress.train.completion import Completion
from compress.train.eager_optimizers import Adam
from compress.train.independence import dependence, whitened
from compress.train.latents import Latent, outputs_of
from compress.wording import did_you_mean

HIDDEN = 128
"""Units of an adversary's two hidden layers: it has to be stronger than the probes that judge the result."""

ROUNDS = 3
"""Steps of the adversary at each step of the network."""

RATE = 3e-3
"""The learning rate of Adam for heads, completions and adversaries."""


class Shaping:
    """The terms of the loss that shape the latent space of a pruner.

    In each step of a training loop, add `loss(attributes)` to the loss before `backward()`, and call `step()` after
    the optimizer's step. Call `close()` after the training, or use it in a `with` statement.
    """

    def __init__(
        self,
        pruner: Pruner | Latent,
        *,
        keep: Mapping[str, float] | None = None,
        drop: Mapping[str, float] | None = None,
        classes: Mapping[str, int],
        seed: int = 0,
    ) -> None:
        """
        Args:
            pruner: it prunes nodes of one layer, whose outputs are [N, nodes].
            keep: attributes that the remaining nodes are to hold, by their weight in the loss, above 0: of the cross
                entropy in nats.
            drop: attributes that the remaining nodes are to be independent of, by their weight in the loss, above 0.
            classes: the number of classes of each attribute, at least 2.
            seed: seeds the heads and adversaries.

        Raises:
            InputError: an option is wrong, an attribute is both kept and dropped, or the pruner prunes weights.
            TargetError: the pruner prunes nodes of several layers.
        """
        check("seed", seed, int, ge=-(2**63), lt=2**64)
        self._latent = pruner if isinstance(pruner, Latent) else Latent.of(_checked(pruner).selection)
        for key, given in (("keep", keep), ("drop", drop), ("classes", classes)):
            if given is not None and not isinstance(given, Mapping):
                raise InputError(f"{key}: found {shown(given)}; expected a mapping by the names of attributes")
        self._keep, self._drop = dict(keep or {}), dict(drop or {})
        _require_attributes(self._keep, self._drop, classes)
        self._classes = {name: classes[name] for name in (*self._keep, *self._drop)}
        self._seed = seed
        self._heads = self._learners(nn.Linear, self._keep)
        self._adversaries = self._learners(_adversary, self._drop)
        self._completions: _Learners | None = None  # until the first output, whose shape they have
        self._stack = ExitStack()
        self._seen = self._stack.enter_context(outputs_of(self._latent.model, self._latent.layer, training=True))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes that `loss` takes."""
        return tuple(self._classes)

    @property
    def layer(self) -> str:
        """The name of the layer whose outputs are shaped."""
        return self._latent.layer

    def loss(self, attributes: Mapping[str, Tensor]) -> Tensor:
        """The terms for the latest forward pass of the network in training mode, a scalar.

        The adversaries take their steps here, since the network's gradient is to be that of trained ones.

        Args:
            attributes: the classes of its samples by name, [N].

        Raises:
            InputError: an attribute is missing or of another length, a class is out of range, or there was no pass.
        """
        with torch.autocast(next(self._latent.model.parameters()).device.type, enabled=False):
            codes, found = self._of_latest_pass(attributes)
            kept = self._latent.kept().to(codes.device)
            total = codes.new_zeros(())
            unit = _changed(codes, kept, _of_unit_scale)
            for (name, weight), head in zip(self._keep.items(), self._heads.modules, strict=True):
                total = total + weight * F.cross_entropy(head(unit), found[name])
            if self._drop:
                white = _changed(codes, kept, whitened)
                self._train_adversaries(white.detach(), found)
                for (name, weight), adversary in zip(self._drop.items(), self._adversaries.modules, strict=True):
                    total = total + weight * self._dependence(white, found[name], adversary)
        return total

    def completed(self, output: Tensor, attributes: Mapping[str, Tensor]) -> Tensor:
        """The network's latest output [N, ...] with what the dropped attributes add to it (`Completion`).

        Give this to the loss of a task that needs the dropped attributes, as reconstruction does: the codes then have
        nothing to gain from holding them.

        Args:
            output: of the same shape in every pass, but for N.
            attributes: as for `loss`.

        Raises:
            InputError: as `loss`, or the output has another shape than the first one.
        """
        shape = output.shape[1:]
        if self._completions is None:
            self._completions = self._learners(partial(Completion, outputs=shape.numel()), self._drop)
        with torch.autocast(output.device.type, enabled=False):
            codes, found = self._of_latest_pass(attributes)
            codes = codes * self._latent.kept().to(codes.device)
            for name, completion in zip(self._drop, self._completions.modules, strict=True):
                if completion.outputs != shape.numel():
                    raise InputError(
                        f"output: found the shape {list(output.shape)}; expected as many values for each sample as in "
                        f"the first output, {completion.outputs}"
                    )
                output = output + completion(codes, found[name]).view(-1, *shape)
        return output

    def mixed(self, loss: Loss, *, completes: bool) -> Loss:
        """`loss` with the terms added, for targets that are `Attributed`; if `completes`, of completed outputs."""

        def mixed(output: object, target: Attributed) -> Tensor:
            if completes and self._drop:
                output = self.completed(prediction(output), target.attributes)
            return loss(output, target.target) + self.loss(target.attributes)

        return mixed

    def step(self) -> None:
        """Update heads and completions by the gradients of `backward()`. Call it after the optimizer's step."""
        self._heads.step()
        if self._completions is not None:
            self._completions.step()

    def close(self) -> None:
        """Leave the network alone."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Of the heads, adversaries and completions, with their optimizers."""
        return {
            "heads": self._heads.state_dict(),
            "adversaries": self._adversaries.state_dict(),
            "completions": None if self._completions is None else self._completions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._heads.load_state_dict(state["heads"])
        self._adversaries.load_state_dict(state["adversaries"])
        if state["completions"] is not None:
            outputs = len(state["completions"]["modules"]["0.output.weight"])
            self._completions = self._learners(partial(Completion, outputs=outputs), self._drop)
            self._completions.load_state_dict(state["completions"])

    def _learners(self, made: Callable[[int, int], nn.Module], names: Iterable[str]) -> "_Learners":
        """made(nodes, classes) for each attribute; random numbers of the caller are left alone."""
        device = next(self._latent.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed)
            return _Learners([made(len(self._latent.kept()), self._classes[name]) for name in names], device)

    def _of_latest_pass(self, attributes: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The codes [N, nodes] of the latest pass, and the classes of its samples by attribute."""
        if not self._seen:
            raise InputError(f"there was no forward pass of {self.layer!r} in training mode: call the network first")
        codes = self._seen[0].float()
        return codes, {name: self._checked(name, attributes, codes) for name in self._classes}

    def _train_adversaries(self, white: Tensor, found: Mapping[str, Tensor]) -> None:
        for _ in range(ROUNDS):
            with torch.enable_grad():
                losses = [
                    F.cross_entropy(adversary(white), found[name])
                    for name, adversary in zip(self._drop, self._adversaries.modules, strict=True)
                ]
                torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            self._adversaries.step()

    def _dependence(self, white: Tensor, classes: Tensor, adversary: nn.Module) -> Tensor:
        """What the adversary has learned, in nats, and the measured dependence; both are near 0 without any."""
        frozen = {name: parameter.detach() for name, parameter in adversary.named_parameters()}
        said = torch.func.functional_call(adversary, frozen, white)
        shares = classes.bincount(minlength=said.shape[1]).to(said.dtype) / len(classes)
        learned: Tensor = torch.special.entr(shares).sum() - F.cross_entropy(said, classes)
        return learned + dependence(white, classes)

    def _checked(self, name: str, attributes: Mapping[str, Tensor], codes: Tensor) -> Tensor:
        if name not in attributes:
            raise InputError(f"attributes: {name!r} is missing; found {', '.join(attributes) or 'none'}")
        classes = torch.as_tensor(attributes[name]).to(codes.device)
        if classes.shape != codes.shape[:1] or classes.is_floating_point():
            raise InputError(
                f"attributes: {name!r} is {classes.dtype} of shape {list(classes.shape)}; expected a whole number for "
                f"each of the {len(codes)} samples"
            )
        classes = classes.long()
        low, high = classes.aminmax()
        if low < 0 or high >= self._classes[name]:
            wrong = int(low if low < 0 else high)
            raise InputError(f"attributes: {name!r} has the class {wrong}; expected 0 to {self._classes[name] - 1}")
        return classes


class _Learners:
    """Networks beside the one that is pruned, one for each attribute, and their optimizer."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        # A list, since a ModuleDict refuses some names, such as those with dots.
        self.modules: Any = nn.ModuleList(modules).to(device)
        self._optimizer = Adam(self.modules.parameters(), RATE) if modules else None

    def step(self) -> None:
        """Learn from the gradients of `backward()`."""
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        optimizer = None if self._optimizer is None else self._optimizer.state_dict()
        return {"modules": self.modules.state_dict(), "optimizer": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        if self._optimizer is not None:
            self._optimizer.load_state_dict(state["optimizer"])


def _checked(pruner: object) -> Pruner:
    if not isinstance(pruner, Pruner):
        raise InputError(f"pruner: found {shown(pruner)}; expected a compress.Pruner")
    return pruner


def _require_attributes(keep: Mapping[str, float], drop: Mapping[str, float], classes: Mapping[str, int]) -> None:
    if classes is None:
        raise InputError("classes: found None; expected the number of classes of each attribute")
    if not keep and not drop:
        raise InputError("found neither keep nor drop; name an attribute in one of them")
    for key, weights in (("keep", keep), ("drop", drop)):
        for name, weight in weights.items():
            check(f"{key}: a name", name, str)
            check(f"{key}[{name!r}]", weight, float, gt=0)
            if name not in classes:
                raise InputError(f"classes: {name!r} is missing{did_you_mean(name, classes)}")
            check(f"classes[{name!r}]", classes[name], int, ge=2)
    if both := [name for name in keep if name in drop]:
        raise InputError(f"{both[0]!r} is in keep and in drop; remove it from one of them")


def _changed(codes: Tensor, kept: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of the kept nodes among codes [N, nodes]; the others are 0."""
    found = torch.zeros_like(codes)
    found[:, kept] = change(codes[:, kept])
    return found


def _of_unit_scale(codes: Tensor) -> Tensor:
    """Codes [N, nodes] with mean 0 in each node and a mean square of 1 over all nodes together, over the batch."""
    codes = codes - codes.mean(0)
    return codes / (codes.square().mean() + 1e-12).sqrt()


def _adversary(nodes: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(nodes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
    )
