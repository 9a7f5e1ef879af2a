"""A warning names a dense network that knows the held-out images, and no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import Result

Run = Callable[..., Result]

WARNING = "it was probably trained on the former, which makes {} stricter than it looks"


@pytest.fixture
def unlike(recipe_text: str, npz: Path, pictures: Callable[..., dict[str, NDArray[Any]]], tmp_path: Path) -> Path:
    """The recipe with data whose test images are nothing like the training images, as if those were known by heart."""
    content = pictures()
    content["images"][-20:] = np.random.default_rng(1).integers(0, 255, content["images"][-20:].shape)
    np.savez(tmp_path / "unlike.npz", **content)
    path = tmp_path / "unlike.yaml"
    path.write_text(recipe_text.replace(npz.as_posix(), (tmp_path / "unlike.npz").as_posix()), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("command", "options", "bound"),
    [
        ("sensitivity", ("--levels", ".25,.5", "--tolerate", "3x"), "--tolerate 3x"),
        ("search", ("--levels", ".25,.5", "--max-loss", "3x"), "--max-loss 3x"),
    ],
)
def test_bounds_relative_to_images_that_are_known(
    command: str, options: tuple[str, ...], bound: str, unlike: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1)
    found = run(command, unlike, trained, *options, *where)
    assert WARNING.format(bound) in found.stderr
    assert "train it again without them (--set data.train=90; the last 10% of the training samples" in found.stderr


@pytest.mark.extended
@pytest.mark.parametrize("bound", [("--max-loss", "3x"), ("--max-loss", "5"), ("--max-params", "0.999x")])
def test_nothing_is_told_where_images_are_alike_or_the_bound_is_no_multiple(
    bound: tuple[str, str], unlike: Path, recipe: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1, "--levels", ".25,.5")
    found = run("search", recipe if bound[1] == "3x" else unlike, trained, *bound, *where)
    assert "stricter than it looks" not in found.stderr


def test_a_validation_part_that_is_known_says_another_way_out(
    unlike: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    where = ("-o", tmp_path / "out", "--cache", tmp_path / "cells", "--workers", 1, "--levels", ".25,.5")
    found = run("search", unlike, trained, "--max-loss", "3x", *where, "--set", "data.validation=0.2")
    assert "give samples as `data.validation` that it was not trained on" in found.stderr
