"""One step of a recipe's plan: what to prune, how much of it, and how to remove it."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from compress.recipe.schema.criterion import AnyCriterion, Criterion
from compress.recipe.schema.described import Described, part_of
from compress.recipe.schema.parts import Count, Distinct, Names, Part, Text, listed, told_by
from compress.recipe.schema.removal import AnyRemoval, Regrowth, Removal
from compress.recipe.schema.shaping import Shaping
from compress.recipe.schema.training import Retraining
from compress.select import pattern
from compress.select.amount import Measure, Scope

Excluded = Annotated[Distinct[Text], BeforeValidator(listed, json_schema_input_type=Text | Distinct[Text])]


class Nodes(Part):
    """Outputs of layers (nodes, channels, attention heads), which `slim` then cuts out."""

    nodes: Names = Field(
        description="patterns of layer names, such as latent or blocks.*; their output nodes are pruned, together with "
        "everything coupled to them"
    )
    exclude: Excluded = Field(
        default=(),
        description="patterns of layer names that keep their width, together with everything coupled to them",
    )


class Branches(Part):
    """Residual branches, each of which is removed as a whole."""

    branches: Names = Field(
        description="patterns of the layers at the ends of residual branches, or of modules that contain these layers; "
        "* for all"
    )
    exclude: Excluded = Field(default=(), description="patterns of branches to keep, of the same form")


class Weights(Part):
    """Single weights."""

    weights: Names = Field(description="patterns of parameter names, such as decoder.*")
    bias: bool = Field(default=False, description="whether to prune biases, too")
    exclude: Excluded = Field(default=(), description="patterns of names of parameters or layers to leave out")


Target = Annotated[
    Annotated[Nodes, Tag("nodes target")]
    | Annotated[Branches, Tag("branches target")]
    | Annotated[Weights, Tag("weights target")],
    told_by("target", "nodes", "branches", "weights"),
]


def _min_keep_form(value: object) -> str:
    return "share" if isinstance(value, float) else "count"


MinKeep = Annotated[
    Annotated[int, Field(ge=0), Tag("count")] | Annotated[float, Field(gt=0, lt=1), Tag("share")],
    Discriminator(_min_keep_form),
]


class PatternPart(Described):
    def build(self) -> pattern.Pattern:
        return pattern.Pattern(**self.options())

    def __str__(self) -> str:
        return str(self.build())


def _scope_form(value: object) -> str:
    return "pattern" if isinstance(value, Mapping | PatternPart) else "word"


if TYPE_CHECKING:
    Pattern = PatternPart
else:
    Pattern = part_of(PatternPart, pattern.Pattern)

AnyScope = Annotated[
    Annotated[Scope, Tag("word")] | Annotated[Pattern, Tag("pattern")],
    Discriminator(_scope_form),
]

Layers = Annotated[dict[str, Annotated[float, Field(ge=0, lt=1)]], Field(min_length=1)]
Budget = Annotated[float | None, Field(gt=0, lt=1)]


class Stage(Part):
    """One step of the plan: which parameters, nodes or branches to prune, how many, and how to remove them."""

    target: Target = Field(
        description="which parameters, nodes or branches: {nodes: latent}, {weights: [decoder.*]} or {branches: '*'}"
    )
    criterion: Criterion = Field(
        description="which to prune first: magnitude, random, lamp, skeletonization, ...; for branches ablation"
    )
    layers: Layers | None = Field(
        default=None,
        description="instead of sparsity: the share of each layer to prune, by patterns of names; the first match wins",
    )
    scope: AnyScope | None = Field(
        default=None,
        validate_default=True,
        description="weights are ranked over all targeted tensors together (global, the default), in each (layer), or "
        "in each with a share by its shape (erk), or {n: 2, m: 4} keeps 2 of every 4 along the inputs; nodes in their "
        "coupling (layer, the default), among couplings of the same structure (isomorphic), or all together (global)",
    )
    params: Budget = Field(
        default=None, description="instead of sparsity, for nodes and branches: share of all parameters to keep"
    )
    macs: Budget = Field(
        default=None, description="instead of sparsity, for nodes and branches: share of all multiply-adds to keep"
    )
    sparsity: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        validate_default=True,
        description="share of the original target to prune, at least 0 and below 1",
    )
    multiple_of: Count = Field(default=1, description="for nodes: round widths up to a multiple of this")
    min_keep: MinKeep | None = Field(
        default=None,
        description="the least that every layer keeps: a number of entries, or a share between 0 and 1; if absent, a "
        "quarter or less of each width where nodes of several layers compete or share a budget, and otherwise nothing; "
        "0 is no floor",
    )
    compensate: bool | None = Field(
        default=None,
        description="adjust the kept weights by least squares, layer by layer, to make up for what is pruned; "
        "if absent, only for nodes that are removed at once (hard), and, without retraining, for branches and "
        "for weights by obs",
    )
    removal: Removal = Field(
        description="how they are removed: hard, soft, gradual, gradual_soft, sfp, srfp or greg; branches hard or soft"
    )
    regrow: Regrowth | None = Field(
        default=None,
        description="for gradual removal of weights: at each selection, some pruned weights grow back",
    )
    retrain: Retraining | None = Field(
        default=None, validate_default=True, description="how the remaining parameters train; no retraining if absent"
    )

    shape: Shaping | None = Field(
        default=None,
        validate_default=True,
        description="for latent nodes: while they are removed and retrained, attributes of the samples that the "
        "remaining ones are to hold (keep) or not (drop)",
    )
    recalibrate: bool | None = Field(
        default=None,
        description="estimate the statistics of batch norms from training samples after the removal; if absent, only "
        "without retraining",
    )

    @field_validator("criterion")
    @classmethod
    def _criterion_fits_the_target(cls, criterion: AnyCriterion, info: ValidationInfo) -> AnyCriterion:
        target = info.data.get("target")
        if isinstance(target, Branches) and not criterion.member.ranks_branches():
            raise ValueError(f"{criterion.kind} does not rank branches; use ablation")
        if isinstance(target, Weights) and not criterion.member.ranks_weights():
            raise ValueError(f"{criterion.kind} ranks nodes, and the target is weights; use magnitude, or target nodes")
        if isinstance(target, Nodes) and not criterion.member.ranks_nodes():
            raise ValueError(
                f"{criterion.kind} ranks weights, and the target is nodes; use skeletonization, or target weights"
            )
        return criterion

    @field_validator("layers")
    @classmethod
    def _layers_are_there_to_go(cls, layers: dict[str, float] | None, info: ValidationInfo) -> dict[str, float] | None:
        if layers is not None and isinstance(info.data.get("target"), Branches):
            raise ValueError("a branch is removed as a whole; remove the key, and use sparsity, params or macs")
        if layers is not None and not any(layers.values()):
            raise ValueError("every layer keeps everything; give one of them a share above 0")
        if layers is not None and getattr(info.data.get("criterion"), "kind", "") == "principal_axes":
            raise ValueError("principal_axes prunes a single layer, which has one share; use sparsity")
        return layers

    @field_validator("scope")
    @classmethod
    def _scope_fits_the_target(cls, scope: AnyScope | None, info: ValidationInfo) -> AnyScope | None:
        target = info.data.get("target")
        if scope is not None and isinstance(target, Branches):
            raise ValueError("branches are all ranked together; remove the key")
        if isinstance(scope, PatternPart) and (isinstance(target, Nodes) or getattr(target, "bias", False)):
            which = "nodes" if isinstance(target, Nodes) else "biases as well"
            raise ValueError(
                f"the pattern {scope} is for weights, and the target is {which}; use a word, such as layer"
            )
        if info.data.get("layers") is not None:
            if scope not in (None, "layer"):
                raise ValueError(f"{scope} and `layers` both set the share of each layer; remove one of the two")
            return "layer"
        if isinstance(target, Nodes) and scope == "erk":
            raise ValueError(
                "erk distributes weights over tensors, and the target is nodes; use layer, isomorphic or global"
            )
        if isinstance(target, Weights) and scope == "isomorphic":
            raise ValueError("isomorphic is for nodes, and the target is weights; use global, layer or erk")
        return "global" if scope is None and isinstance(target, Weights) else scope

    @field_validator("params", "macs", "multiple_of")
    @classmethod
    def _widths_are_of_nodes(cls, value: float | None, info: ValidationInfo) -> float | None:
        target = info.data.get("target")
        if value not in (None, 1) and isinstance(target, Weights):
            raise ValueError(f"{info.field_name} is for nodes, and the target is weights; remove the key")
        if info.field_name == "multiple_of" and value != 1 and isinstance(target, Branches):
            raise ValueError("multiple_of is for nodes, and the target is branches; remove the key")
        return value

    @field_validator("sparsity")
    @classmethod
    def _there_is_one_level(cls, sparsity: float | None, info: ValidationInfo) -> float | None:
        others = ("layers", "params", "macs")
        if not info.data.keys() >= {*others, "scope"}:
            return sparsity  # one of them is wrong and is reported by its own validator
        budgets = [name for name in others if info.data[name] is not None]
        if isinstance(scope := info.data.get("scope"), PatternPart):
            return _pattern_share(scope.build(), sparsity, budgets)
        if sparsity is None and not budgets:
            raise PydanticCustomError("missing", "missing")
        if len(budgets) + (sparsity is not None) > 1:
            raise ValueError(f"found together with {' and '.join(budgets)}; both set the amount; keep one of them")
        return sparsity

    @field_validator("min_keep")
    @classmethod
    def _a_pattern_says_how_many_are_kept(cls, min_keep: Any, info: ValidationInfo) -> Any:
        if min_keep is not None and isinstance(info.data.get("target"), Branches):
            raise ValueError("min_keep is for weights and nodes, and the target is branches; remove the key")
        if min_keep is not None and isinstance(scope := info.data.get("scope"), PatternPart):
            raise ValueError(f"the pattern {scope} of `scope` says how many weights are kept; remove the key")
        return min_keep

    @field_validator("removal")
    @classmethod
    def _compensation_needs_hard_removal(cls, removal: AnyRemoval, info: ValidationInfo) -> AnyRemoval:
        if info.data.get("compensate") and removal.kind != "hard":
            raise ValueError(
                f"compensate is for what is removed at once, and {removal.kind} removal takes several steps; "
                "remove `compensate`, or use removal: hard"
            )
        return removal

    @field_validator("regrow")
    @classmethod
    def _regrowth_needs_new_choices(cls, regrow: Regrowth | None, info: ValidationInfo) -> Regrowth | None:
        removal = info.data.get("removal")
        if regrow is None or removal is None:
            return regrow
        if isinstance(target := info.data.get("target"), Nodes | Branches):
            which = "nodes" if isinstance(target, Nodes) else "branches"
            raise ValueError(f"regrow is for weights, and the target is {which}; remove the key")
        if removal.kind in ("sfp", "srfp"):
            raise ValueError(f"weights that {removal.kind} removal lowers keep learning, and grow back; remove the key")
        if not removal.member.grows:
            raise ValueError(
                f"{removal.kind} removal chooses once, and weights grow back only at a new choice; remove `regrow`, "
                "or use removal: gradual or gradual_soft"
            )
        return regrow

    @field_validator("retrain")
    @classmethod
    def _retraining_fits(cls, retrain: Retraining | None, info: ValidationInfo) -> Retraining | None:
        removal = info.data.get("removal")
        if removal is not None and removal.kind != "hard":
            _check_removal_has_time(removal, retrain)
        target = info.data.get("target")
        if retrain and retrain.trainable == "adjacent" and isinstance(target, Weights | Branches):
            which = "weights" if isinstance(target, Weights) else "branches"
            raise ValueError(
                f"trainable: adjacent is for nodes, and the target is {which}; use all, or a list of patterns"
            )
        return retrain

    @field_validator("shape")
    @classmethod
    def _latent_nodes_are_shaped_in_training(cls, shape: Shaping | None, info: ValidationInfo) -> Shaping | None:
        if shape is None:
            return shape
        if isinstance(target := info.data.get("target"), Weights | Branches):
            which = "weights" if isinstance(target, Weights) else "branches"
            raise ValueError(f"shape is for latent nodes, and the target is {which}; remove the key, or target nodes")
        retrain = info.data.get("retrain", ...)
        if retrain is None or (isinstance(retrain, Retraining) and not retrain.epochs):
            raise ValueError("shape is learned during retraining; add `retrain` with at least 1 epoch")
        return shape

    @property
    def level(self) -> tuple[Measure, float]:
        """How much: the sparsity (the largest, if each layer has its own), or the budget that is kept."""
        if self.layers is not None:
            return "sparsity", max(self.layers.values())
        for measure in get_args(Measure):
            value: float | None = getattr(self, measure)
            if value is not None:
                return measure, value
        raise AssertionError("the schema demands one")

    @property
    def trains(self) -> bool:
        return self.retrain is not None and self.retrain.epochs > 0

    @property
    def recalibrates(self) -> bool:
        """Whether statistics of norms are estimated after the removal."""
        return not self.trains if self.recalibrate is None else self.recalibrate

    @property
    def compensates(self) -> bool:
        """Whether the kept weights make up for what is pruned."""
        if self.compensate is not None:
            return self.compensate
        if self.removal.kind != "hard":
            return False
        made_for_it = isinstance(self.target, Branches) or self.criterion.kind == "obs"
        return isinstance(self.target, Nodes) or (made_for_it and not self.trains)

    @property
    def goes(self) -> float:
        """The share to prune, of the target's entries or of the budget's measure."""
        measure, value = self.level
        return value if measure == "sparsity" else 1.0 - value


def _pattern_share(wanted: pattern.Pattern, sparsity: float | None, budgets: list[str]) -> float:
    """The sparsity that the pattern sets."""
    if budgets:
        raise ValueError(
            f"found {' and '.join(budgets)}, and the pattern {wanted} also sets the amount; keep one of them"
        )
    if sparsity is not None and not math.isclose(sparsity, wanted.share):
        raise ValueError(
            f"found {sparsity:g}, and the pattern {wanted} of `scope` prunes {wanted.share:g}; remove the key"
        )
    return wanted.share


def _check_removal_has_time(removal: Any, retrain: Retraining | None) -> None:
    if retrain is None or retrain.epochs == 0:
        raise ValueError(
            f"{removal.kind} removal happens during retraining; "
            "add `retrain` with at least 1 epoch, or use removal: hard"
        )
    if removal.over and removal.over.unit == "epochs" and removal.over.amount > retrain.epochs:
        raise ValueError(
            f"{retrain.epochs} epochs end before the removal does (over: {removal.over}); "
            "retrain for longer, or shorten `over`"
        )
