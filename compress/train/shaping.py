"""`Shaping`: attributes of the samples are kept in a latent space, or dropped from it, while nodes are pruned.

A wanted attribute has a head, a linear layer on the remaining nodes, that learns it together with the network. An
unwanted one has an adversary that learns it as well as it can from the remaining nodes, while its gradient reaches the
network reversed (Ganin et al., "Domain-adversarial training of neural networks", 2016); beside it, the network lowers
a measure of dependence between the nodes and the classes that has a closed form. Heads and adversaries have their own
optimizers, and no part in the network.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.batches import Attributed
from compress.errors import InputError
from compress.options import check, shown
from compress.remove.pruner import Pruner
from compress.tasks import Loss
from compress.train.independence import dependence, whitened
from compress.train.latents import Latent, outputs_of
from compress.wording import did_you_mean

HIDDEN = 128
"""Units of an adversary's two hidden layers: it has to be stronger than the probes that judge the result."""

ROUNDS = 3
"""Steps of the adversary at each step of the network."""

HEAD_RATE, ADVERSARY_RATE = 3e-3, 3e-3
"""Learning rates of Adam."""


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
            seed: seeds the adversaries.

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
        like = next(self._latent.model.parameters())
        nodes = len(self._latent.kept())
        with torch.random.fork_rng([like.device] if like.device.type == "cuda" else []):
            torch.manual_seed(seed)
            heads = {name: nn.Linear(nodes, classes[name]) for name in self._keep}
            adversaries = {name: _adversary(nodes, classes[name]) for name in self._drop}
        # Lists, since a ModuleDict refuses some names, such as those with dots.
        self._heads = nn.ModuleList(heads.values()).to(like.device)
        self._adversaries = nn.ModuleList(adversaries.values()).to(like.device)
        self._optimizers = [
            torch.optim.Adam(part.parameters(), rate)
            for part, rate in ((self._heads, HEAD_RATE), (self._adversaries, ADVERSARY_RATE))
            if len(part)
        ]
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
        if not self._seen:
            raise InputError(f"there was no forward pass of {self.layer!r} in training mode: call the network first")
        with torch.autocast(self._seen[0].device.type, enabled=False):
            codes = self._seen[0].float()
            found = {name: self._checked(name, attributes, codes) for name in self._classes}
            kept = self._latent.kept().to(codes.device)
            total = codes.new_zeros(())
            for (name, weight), head in zip(self._keep.items(), self._heads, strict=True):
                total = total + weight * F.cross_entropy(head(codes * kept), found[name])
            if self._drop:
                white = torch.zeros_like(codes)
                white[:, kept] = whitened(codes[:, kept])
                self._train_adversaries(white.detach(), found)
                for (name, weight), adversary in zip(self._drop.items(), self._adversaries, strict=True):
                    total = total + weight * self._dependence(white, found[name], adversary)
        return total

    def mixed(self, loss: Loss) -> Loss:
        """`loss` with the terms added, for targets that are `Attributed`."""

        def mixed(output: object, target: Attributed) -> Tensor:
            return loss(output, target.target) + self.loss(target.attributes)

        return mixed

    def step(self) -> None:
        """Update the heads by the gradients of `backward()`. Call it after the optimizer's step."""
        if len(self._heads):
            self._optimizers[0].step()
            self._optimizers[0].zero_grad()

    def close(self) -> None:
        """Leave the network alone."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def state_dict(self) -> dict[str, Any]:
        """Of the heads, the adversaries and their optimizers."""
        return {
            "heads": self._heads.state_dict(),
            "adversaries": self._adversaries.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._heads.load_state_dict(state["heads"])
        self._adversaries.load_state_dict(state["adversaries"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def _train_adversaries(self, white: Tensor, found: Mapping[str, Tensor]) -> None:
        optimizer = self._optimizers[-1]
        for _ in range(ROUNDS):
            with torch.enable_grad():
                losses = [
                    F.cross_entropy(adversary(white), found[name])
                    for name, adversary in zip(self._drop, self._adversaries, strict=True)
                ]
                torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

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


def _adversary(nodes: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(nodes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)
    )
