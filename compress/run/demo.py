"""`compress demo`: the whole workflow on real digits, short enough to watch."""

import warnings
from collections.abc import Callable
from pathlib import Path

from compress.errors import DataError
from compress.files.checkpoint import write_weights
from compress.recipe.loading import load_recipe
from compress.results import Results, Warned
from compress.run import apply
from compress.run.clock import Clock
from compress.run.output import added, begin
from compress.run.setting import Watcher

INT8 = ["export=[onnx, safetensors, pt2, int8]", "quantize={max_drop: 2}"]  # percent of the loss
# With MNIST, a few of the recipe's epochs. The sample is a twelfth of MNIST, so its epochs are short.
BRIEF = {
    "mnist": [
        "train.epochs=8",
        "stages.0.retrain.epochs=3",
        "stages.1.retrain.epochs=6",
        "stages.1.removal.over=2 epochs",
    ],
    "mnist_sample": [
        "data.name=mnist_sample",
        "data.train=4000",
        "train.epochs=55",
        "stages.0.retrain.epochs=10",
        "stages.0.removal.over=3 epochs",
        "stages.1.retrain.epochs=28",
        "stages.1.removal.over=9 epochs",
    ],
}


def run(
    out: Path,
    data_root: Path,
    device: str,
    watcher: Watcher,
    tell: Callable[[str], None],
    clock: Clock,
    warned: list[Warned],
) -> Results:
    """Train the autoencoder of the recipe mnist_ae briefly into `out`/model.pt, and apply the recipe to it.

    Uses MNIST if it is in `data_root` or can be downloaded; otherwise falls back to `mnist_sample`, with a warning.

    Returns:
        The content of results.json.

    Raises:
        DataError: neither MNIST nor the sample is available.
    """
    recipe = load_recipe("mnist_ae", [*BRIEF["mnist"], *INT8])
    try:
        setting = apply.prepare(recipe, data_root, device, watcher, clock)
    except DataError as error:
        warnings.warn(
            f"MNIST is not available: {error}. Falling back to mnist_sample, 5,000 real MNIST digits: the losses are "
            "not those of full MNIST.",
            stacklevel=1,
        )
        recipe = load_recipe("mnist_ae", [*BRIEF["mnist_sample"], *INT8])
        setting = apply.prepare(recipe, data_root, device, watcher, clock)
    begin(out, "demo")
    trained = apply.train_dense(recipe, out / "model.pt", setting, _added)
    assert trained is not None  # this process trains alone
    tell(f"{out / 'model.pt'}: test loss {trained['metric']['loss']:.4g} after {trained['seconds']:.0f} s of training")
    results = apply.apply(recipe, out / "model.pt", out / "mnist_ae", setting, warned=warned)
    assert results is not None
    return results


def _added(weights: apply.State, path: Path) -> None:
    with added(path.parent, path.name) as draft:
        write_weights(weights, draft)
