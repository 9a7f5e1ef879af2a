"""Draws docs/images/latent-features.png: what each code of a latent space changes, with plain pruning and with shape.

    python docs/traversals.py runs --data-root DIR

`runs` is the folder in which benchmarks/latent_features.py has left the results of seed 0.
"""

import argparse
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

import compress
from compress.data.dataset import Dataset
from compress.recipe.loading import load_recipe
from compress.run.building import build_model
from compress.run.data_sets import build_data

OUT = Path(__file__).parent / "images" / "latent-features.png"
RECIPE, CODES = "mnist_ae_features", "decoder.1.axes"
STEPS, SCALE, GAP = 9, 2, 6
"""Columns of a row, screen pixels of a pixel, and screen pixels between the two panels."""

IMAGE = 1
"""The test image whose codes are changed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--data-root", default=os.environ.get("COMPRESS_DATA", "data"))
    arguments = parser.parse_args()
    recipe = load_recipe(RECIPE)
    data = build_data(recipe.data, Path(arguments.data_root))
    assert isinstance(data, Dataset)
    panels = []
    for case in ("plain", "shaped"):
        file = arguments.runs / f"mnist_features_0_{case}" / "slim.safetensors"
        small = compress.load(file, model=lambda: build_model(recipe.model, 0))
        panels.append(traversals(small, data))
    gap = torch.ones(3, panels[0].shape[1], GAP)
    whole = torch.cat([panels[0], gap, panels[1]], 2)
    pixels = (whole.permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(pixels).quantize(128).save(OUT, optimize=True)


@torch.no_grad()
def traversals(small: nn.Module, data: Dataset) -> Tensor:
    """[3, rows, columns]: a row for each code, in which it takes its values among the test images, evenly spaced."""
    batches = data.batches("test", 1000, "reconstruct", attributes=("label",))
    codes = compress.codes(small, CODES, batches()).codes
    low, high = codes.quantile(torch.tensor([0.02, 0.98]), dim=0)
    decoder, reader = small.get_submodule("decoder"), small.get_submodule("decoder.1.reader")
    assert isinstance(decoder, nn.Sequential)
    rows = []
    for node in range(codes.shape[1]):
        changed = codes[IMAGE].repeat(STEPS, 1)
        changed[:, node] = torch.linspace(float(low[node]), float(high[node]), STEPS)
        images = decoder[2:](reader(changed))  # after the tanh, the axes and their reader
        rows.append(torch.cat([*images.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3)], 2))
    return torch.cat(rows, 1)


if __name__ == "__main__":
    main()
