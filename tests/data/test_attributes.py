"""Attributes of samples from every source reach the batches beside the targets, row for row."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from compress.batches import Attributed
from compress.data import sources
from compress.data.array_samples import ArrayNames, from_arrays
from compress.data.attributes import classes_of
from compress.data.dataset import Split, TrainingData
from compress.data.loaders import from_loaders
from compress.data.nuisances import SATURATION, Nuisances, hues
from compress.data.table_columns import TableSettings
from compress.data.table_files import CsvFile
from compress.data.tables import from_table
from compress.errors import DataError

RNG = np.random.default_rng(0)
IMAGES, LABELS, MAKER = RNG.integers(0, 256, (30, 1, 6, 6), dtype=np.uint8), np.arange(30) % 3, np.arange(30) % 4


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def every_row(data: TrainingData, task: Any, attributes: tuple[str, ...], seed: int = 3) -> tuple[Any, Any, Any]:
    """All shuffled inputs, targets and attributes of the training part, one after the other."""
    given, targets, found = [], [], {name: [] for name in attributes}
    for inputs, target in data.batches("train", 7, task, attributes=attributes)(torch.Generator().manual_seed(seed)):
        assert isinstance(target, Attributed)
        given.append(inputs if isinstance(inputs, torch.Tensor) else inputs.args[0])
        targets.append(target.target)
        for name in attributes:
            found[name].append(target.attributes[name])
    return torch.cat(given), torch.cat(targets), {name: torch.cat(values) for name, values in found.items()}


def test_arrays_beside_images_are_attributes_row_for_row(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=MAKER)
    data = sources.from_npz(path, path, attributes=("maker",))
    assert classes_of(data, ["label", "maker"]) == {"label": 3, "maker": 4}
    _, targets, found = every_row(data, "reconstruct", ("maker", "label"))
    rows = [int(np.argmax((image == IMAGES).all((1, 2, 3)))) for image in (targets * 255).round().byte().numpy()]
    assert sorted(rows) == list(range(30))
    assert found["maker"].tolist() == MAKER[rows].tolist()
    assert found["label"].tolist() == LABELS[rows].tolist()


def test_targets_are_as_ever_where_no_attribute_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=MAKER)
    data = sources.from_npz(path, path, attributes=("maker",))
    assert [target.tolist() for _, target in data.batches("train", 30, "classify")()] == [LABELS.tolist()]


def test_attributes_are_part_of_the_content_that_a_run_is_resumed_with(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=MAKER)
    other = saved(tmp_path / "b.npz", images=IMAGES, labels=LABELS, maker=MAKER[::-1])
    found = [sources.from_npz(file, file, attributes=("maker",)).sha256 for file in (path, other)]
    assert len({*found, sources.from_npz(path, path).sha256}) == 3


def test_arrays_beside_inputs_are_attributes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", inputs=np.arange(30.0)[:, None], maker=MAKER)
    data = from_arrays(path, path, ArrayNames("inputs", attributes=("maker",)))
    assert data.attributes == {"maker": 4}
    given, _, found = every_row(data, "reconstruct", ("maker",))
    assert found["maker"].tolist() == MAKER[given.flatten().long()].tolist()


def test_columns_of_a_table_are_attributes_and_no_inputs(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("x", "ward", "ill"), *((row, "abc"[row % 3], row % 2) for row in range(60))])
    settings = TableSettings(target=("ill",), attributes=("ward",), normalise="none")
    data = from_table(CsvFile(tmp_path / "a.csv"), None, settings)
    assert data.shape == (1,)
    assert classes_of(data, ["label", "ward"]) == {"label": 2, "ward": 3}
    given, targets, found = every_row(data, "classify", ("ward", "label"))
    assert found["ward"].tolist() == (given.flatten() % 3).tolist()
    assert found["label"].tolist() == targets.tolist() == (given.flatten() % 2).tolist()


def test_loaders_give_attributes_in_their_targets() -> None:
    samples = [(torch.tensor([float(row)]), Attributed(torch.tensor(row), {"ward": row % 3})) for row in range(20)]
    data = from_loaders((DataLoader(samples, 4), DataLoader(samples, 4)))  # type: ignore[arg-type]
    assert data.attributes == {"ward": 3}
    given, targets, found = every_row(data, "regress", ("ward",))
    assert found["ward"].tolist() == (given.flatten() % 3).tolist()
    plain = torch.cat([target for _, target in data.batches("test", 4, "regress")()])
    assert plain.tolist() == targets.tolist() == list(range(20))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (MAKER[:29], r"maker is int64 of shape \[29\]; an attribute is one whole number for each of 30 samples"),
        (MAKER / 2, "maker is float64"),
        (MAKER - 1, "maker has -1; the classes of an attribute are whole numbers from 0"),
        (MAKER.astype(np.uint64) + 2**63, "the classes of an attribute are whole numbers from 0"),
    ],
)
def test_arrays_that_are_no_classes_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=values)
    with pytest.raises(DataError, match=message):
        sources.from_npz(path, path, attributes=("maker",))


def test_a_test_class_that_no_training_sample_has_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=MAKER)
    other = saved(tmp_path / "b.npz", images=IMAGES, labels=LABELS, maker=MAKER + 1)
    with pytest.raises(DataError, match=r"the attribute maker has the class 4, and the training samples have 0 to 3"):
        sources.from_npz(path, other, attributes=("maker",))
    with pytest.raises(DataError, match=r"has no array make; .*did you mean maker"):
        sources.from_npz(path, path, attributes=("make",))


def test_unknown_attributes_and_those_of_one_class_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, labels=LABELS, maker=MAKER, same=MAKER * 0)
    data = sources.from_npz(path, path, attributes=("maker", "same"))
    with pytest.raises(DataError, match=r"no attribute makre; it has label, maker, same; did you mean maker"):
        classes_of(data, ["makre"])
    with pytest.raises(DataError, match=r"the attribute same of a\.npz has 1 class in the training samples"):
        classes_of(data, ["same"])
    unlabelled = from_arrays(saved(tmp_path / "b.npz", inputs=MAKER), names=ArrayNames("inputs"))
    with pytest.raises(DataError, match=r"b\.npz has no labels that are classes; it has no attribute at all"):
        classes_of(unlabelled, ["label"])


# --- nuisances ---

PLAIN = Split(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))


def test_a_tint_multiplies_the_grey_image_by_its_hue() -> None:
    found = Nuisances(tint=3).changed(PLAIN, 0, "a")
    low = 1 - SATURATION
    primaries = np.array([(1, low, low), (low, 1, low), (low, low, 1)], np.float32)  # red, green, blue
    np.testing.assert_allclose(hues(3).numpy(), primaries, atol=1e-6)
    expected = np.round(IMAGES * primaries[found.attributes["tint"].numpy()][:, :, None, None])
    np.testing.assert_allclose(found.images.numpy(), expected, atol=1)
    assert np.mean(found.images.numpy() == expected) > 0.99  # halves may be rounded either way


def test_a_rotation_is_that_of_pil_by_the_drawn_angle() -> None:
    angles = (-30.0, 0.0, 90.0)
    found = Nuisances(rotate=angles).changed(PLAIN, 0, "a")
    for image, before, drawn in zip(found.images, IMAGES, found.attributes["rotate"].tolist(), strict=True):
        expected = Image.fromarray(before[0]).rotate(angles[drawn], Image.Resampling.BILINEAR)
        assert np.array_equal(image[0].numpy(), np.asarray(expected))
        if angles[drawn] == 90:
            assert np.array_equal(image[0].numpy(), np.rot90(before[0]))


def test_draws_are_even_independent_and_the_same_for_fewer_images() -> None:
    many = Split(torch.zeros(9000, 1, 1, 1, dtype=torch.uint8), torch.zeros(9000, dtype=torch.int64))
    nuisances = Nuisances(tint=3, rotate=(-30.0, 0.0, 30.0))
    drawn = nuisances.changed(many, 0, "a").attributes
    together = (3 * drawn["tint"] + drawn["rotate"]).bincount(minlength=9)
    assert ((together - 1000).abs() < 4 * 1000**0.5).all()
    few = nuisances.changed(many.take(slice(50)), 0, "a").attributes
    assert all(torch.equal(few[name], drawn[name][:50]) for name in ("tint", "rotate"))
    other = nuisances.changed(many, 1, "a").attributes
    assert not torch.equal(other["tint"], drawn["tint"])


def test_coloured_images_are_not_tinted() -> None:
    with pytest.raises(DataError, match="a: train has coloured images, and `tint` is for grey ones"):
        Nuisances(tint=3).changed(Split(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2)), 0, "a: train")
