"""What the latent spaces that stages have shaped hold in the end: fresh probes on frozen codes, dense and slim."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from torch import nn

from compress.batches import Subset
from compress.data.attributes import classes_of
from compress.recipe import schema
from compress.results import LatentCodes, ProbeResult, ShapedAttribute, ShapedLatent, StageResult
from compress.run.pruning import sketch_of_nodes
from compress.run.setting import Setting
from compress.run.stage import attributes_of
from compress.select.pruned import Pruned
from compress.select.scoring import EVALUATION_BATCH
from compress.train.latents import codes, latent_layer
from compress.train.probes import HIDDEN, Codes, chance, probe


def probed(
    recipe: schema.Recipe,
    stages: Sequence[StageResult],
    dense: Callable[[], nn.Module],
    small: nn.Module,
    masked: nn.Module,
    setting: Setting,
) -> list[ShapedLatent]:
    """Probe the latent space of each stage with `shape`, in the dense network and in the slim one.

    Args:
        stages: the results of the stages.
        masked: computes the same as the slim network; it has the layers where slim is a traced graph.
    """

    def after(layer: str) -> nn.Module:
        return small if layer in dict(small.named_modules()) else masked

    return [
        _probed(stage, number, result["latent"], dense(), after(result["latent"]), setting)
        for number, (stage, result) in enumerate(zip(recipe.stages, stages, strict=True))
        if "latent" in result
    ]


def _probed(
    stage: schema.Stage, number: int, layer: str, dense: nn.Module, small: nn.Module, setting: Setting
) -> ShapedLatent:
    assert stage.shape is not None
    # In the dense network, the target is not yet taken apart into principal axes.
    before = latent_layer(sketch_of_nodes(dense, stage, number, Pruned(), setting))
    wanted = attributes_of(stage)
    aims: tuple[tuple[Literal["keep", "drop"], Mapping[str, float]], ...] = (
        ("keep", stage.shape.keep),
        ("drop", stage.shape.drop),
    )
    with setting.clock.phase("probes"):
        was, now = _codes(dense, before, wanted, setting), _codes(small, layer, wanted, setting)
        attributes: list[ShapedAttribute] = [
            {
                "name": name,
                "aim": aim,
                "weight": weight,
                "classes": classes_of(setting.data, [name])[name],
                "chance": chance(was[1].attributes[name]),
                "dense": _probes(*was, name, setting.seed),
                "slim": _probes(*now, name, setting.seed),
            }
            for aim, weights in aims
            for name, weight in weights.items()
        ]
    return {
        "stage": number + 1,
        "dense": _described(before, was[0]),
        "slim": _described(layer, now[0]),
        "attributes": attributes,
    }


def _codes(network: nn.Module, layer: str, wanted: Sequence[str], setting: Setting) -> tuple[Codes, Codes]:
    """The codes of the training samples and of the test samples, without nodes that are masked."""

    def every(subset: Subset) -> Codes:
        batches = setting.data.batches(subset, EVALUATION_BATCH, setting.task, setting.device, attributes=wanted)
        return codes(network, layer, batches())

    train, test = every("train"), every("test")
    alive = train.codes.any(0)
    return Codes(train.codes[:, alive], train.attributes), Codes(test.codes[:, alive], test.attributes)


def _probes(train: Codes, test: Codes, name: str, seed: int) -> ProbeResult:
    return {
        "linear": probe(train, test, name, seed=seed),
        "two_layer": probe(train, test, name, hidden=HIDDEN, seed=seed),
    }


def _described(layer: str, found: Codes) -> LatentCodes:
    return {"layer": layer, "nodes": found.codes.shape[1]}
