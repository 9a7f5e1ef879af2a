import json
import os
import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn
from torch.nn.utils import prune

from compress.errors import CheckpointError, OutputError
from compress.files.atomic import atomic
from compress.files.checkpoint import WeightsFile, load, load_weights, read_weights, write_weights
from compress.remove.masks import SoftPruningMethod
from compress.slimming.edits import edits_to_json
from compress.slimming.shrink import slim


class Hostile:
    """Unpickled, it makes a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.victim}",)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def shrunk(path: Path) -> nn.Module:
    """A slim network of 2 instead of 5 nodes, written to `path`."""
    model = network()
    with torch.no_grad():
        for tensor in (model[0].weight[2:], model[0].bias[2:], model[2].weight[:, 2:]):
            tensor.zero_()
    small = slim(model, torch.randn(2, 6))
    write_weights(small.state_dict(), path, {"shape_edits": edits_to_json(small.shape_edits)})
    return small


class TestReading:
    @pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
    def test_gives_back_what_was_written(self, tmp_path: Path, name: str) -> None:
        state = network().state_dict()
        write_weights(state, tmp_path / name)
        found = read_weights(tmp_path / name)
        assert found.metadata == {}
        assert found.only("a file").keys() == state.keys()
        assert all(torch.equal(found.only("a file")[key], state[key]) for key in state)

    def test_takes_the_state_dict_out_of_a_training_checkpoint(self, tmp_path: Path) -> None:
        state = network().state_dict()
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "w.pt")
        assert read_weights(tmp_path / "w.pt").only("a file").keys() == state.keys()

    def test_parameters_come_without_a_graph(self, tmp_path: Path) -> None:
        torch.save({"w": nn.Parameter(torch.ones(2))}, tmp_path / "w.pt")
        assert not read_weights(tmp_path / "w.pt").only("a file")["w"].requires_grad

    def test_folds_torch_masks(self, tmp_path: Path) -> None:
        model = network()
        prune.l1_unstructured(model[0], "weight", 0.5)
        torch.save(model.state_dict(), tmp_path / "w.pt")
        prune.remove(model[0], "weight")
        found = read_weights(tmp_path / "w.pt").only("a file")
        assert found.keys() == model.state_dict().keys()
        assert torch.equal(found["0.weight"], model[0].weight)

    def test_folds_soft_masks_and_drops_their_companions(self, tmp_path: Path) -> None:
        model = network()
        before = model[0].weight.detach().clone()
        keep = torch.rand_like(before) > 0.5
        method = SoftPruningMethod.apply(model[0], "weight", keep)
        method.place([(model[0], method)], 0.25)
        torch.save(model.state_dict(), tmp_path / "w.pt")
        found = read_weights(tmp_path / "w.pt").only("a file")
        assert found.keys() == network().state_dict().keys()
        assert torch.equal(found["0.weight"], torch.where(keep, before, 0.25 * before))

    def test_a_removed_entry_is_plain_zero_whatever_it_was(self, tmp_path: Path) -> None:
        torch.save(
            {"w_orig": torch.tensor([-3.0, torch.nan, 2.0]), "w_mask": torch.tensor([0.0, 0, 1])}, tmp_path / "w.pt"
        )
        assert read_weights(tmp_path / "w.pt").only("a file")["w"].numpy().tobytes() == np.float32([0, 0, 2]).tobytes()

    def test_names_that_only_look_like_masks_stay(self, tmp_path: Path) -> None:
        torch.save({"a_mask": torch.ones(2), "b_orig": torch.ones(2), "c_pruned": torch.ones(2)}, tmp_path / "w.pt")
        assert set(read_weights(tmp_path / "w.pt").only("a file")) == {"a_mask", "b_orig", "c_pruned"}


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.pt does not exist"):
            read_weights(tmp_path / "model.pt")

    def test_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="a folder"):
            read_weights(tmp_path)

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_empty(self, tmp_path: Path, suffix: str) -> None:
        (tmp_path / f"w{suffix}").touch()
        with pytest.raises(CheckpointError, match="empty"):
            read_weights(tmp_path / f"w{suffix}")

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
    def test_truncated(self, tmp_path: Path, zipped: bool, share: float) -> None:
        path = tmp_path / "w.pt"
        torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(CheckpointError, match=r"damaged .* `torch\.save\(model\.state_dict\(\)"):
            read_weights(path)

    @pytest.mark.parametrize("content", [b"hello world\n" * 30, bytes(300), b"\x80\x05rubbish", b"PK\x03\x04 no zip"])
    def test_no_torch_file(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"not written by torch\.save"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("content", [b"\xff" * 60, b'\x08\0\0\0\0\0\0\0{"a": 1}', b"\x20\0\0"])
    def test_broken_safetensors_header(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "w.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match="not a safetensors file"):
            read_weights(tmp_path / "w.safetensors")

    def test_truncated_safetensors(self, tmp_path: Path) -> None:
        write_weights(network().state_dict(), tmp_path / "w.safetensors")
        content = (tmp_path / "w.safetensors").read_bytes()
        (tmp_path / "w.safetensors").write_bytes(content[:-4])
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(tmp_path / "w.safetensors")

    def test_pickled_module_is_refused_with_the_line_that_resaves_it(self, tmp_path: Path) -> None:
        torch.save(network(), tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=r"Sequential.*torch\.save\(model\.state_dict\(\), \"model\.pt\"\)"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "pickle protocol 2"])
    def test_hostile_pickle_is_never_executed(self, tmp_path: Path, form: str) -> None:
        victim, path = tmp_path / "executed", tmp_path / "w.pt"
        content = {"0.weight": Hostile(victim)}
        if form.startswith("pickle"):
            path.write_bytes(pickle.dumps(content, protocol=2 if form[-1] == "2" else 5))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict\(\)"):
            read_weights(path)
        assert not victim.exists()
        if form == "zip":  # the payload is alive: whoever unpickles the file without care runs it
            torch.load(path, weights_only=False)
            assert victim.exists()

    @pytest.mark.parametrize(
        "content", [torch.ones(2), [torch.ones(2)], {}, {"a": 1, "b": {"c": 2}}, {3: torch.ones(1)}]
    )
    def test_content_that_is_no_state_dict(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=r"torch\.save\(model\.state_dict\(\)"):
            read_weights(tmp_path / "w.pt")


def rezipped(source: Path, path: Path, change: Callable[[str, bytes], bytes], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def with_header(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


class TestStrangers:
    """Files that were made to do harm, beside code that runs when it is unpickled."""

    def test_an_archive_that_unpacks_to_more_than_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.save({"w": torch.zeros(2_000_000)}, tmp_path / "plain.pt")
        rezipped(tmp_path / "plain.pt", tmp_path / "w.pt", lambda _, content: content, zipfile.ZIP_DEFLATED)
        assert (tmp_path / "w.pt").stat().st_size < 20_000
        assert torch.load(tmp_path / "w.pt")["w"].shape == (2_000_000,)  # torch itself reads on
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
        with pytest.raises(
            CheckpointError, match=r"has \d+,\d+ bytes and unpacks to 8,000,\d+, which nothing written by"
        ):
            read_weights(tmp_path / "w.pt")

    def test_an_archive_that_says_it_unpacks_to_more(self, tmp_path: Path) -> None:
        torch.save({"w": torch.zeros(2)}, tmp_path / "w.pt")
        content = bytearray((tmp_path / "w.pt").read_bytes())
        place = content.rindex(b"PK\x01\x02") + 24  # the size of the last entry, in the directory
        content[place : place + 4] = (2**31).to_bytes(4, "little")
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match="unpacks to 2,147,"):
            read_weights(tmp_path / "w.pt")

    def test_a_tensor_larger_than_its_bytes(self, tmp_path: Path) -> None:
        torch.save({"w": torch.arange(4.0)}, tmp_path / "plain.pt")
        many = b"J" + (10**6).to_bytes(4, "little")  # an integer of four bytes, where pickle has 4 in one

        def change(name: str, content: bytes) -> bytes:
            return content.replace(b"K\x04", many) if name.endswith("data.pkl") else content

        rezipped(tmp_path / "plain.pt", tmp_path / "w.pt", change)
        with pytest.raises(CheckpointError, match=r"claims 1,000,000 entries, more than the file has bytes"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize(
        ("tensor", "text"),
        [
            (torch.zeros(1).expand(10**5, 10**5), r"its tensors claim 40,000,000,000: they repeat the same memory"),
            (torch.empty(10**6, 10**6, device="meta"), r"not plain arrays of numbers: w \(torch.strided, .*, meta\)"),
            (torch.ones(3).to_sparse(), r"not plain arrays of numbers \(torch\._utils\._rebuild_sparse_tensor\)"),
        ],
        ids=["expanded", "meta", "sparse"],
    )
    @pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
    def test_what_is_no_array_of_its_size(self, tmp_path: Path, tensor: torch.Tensor, text: str) -> None:
        torch.save({"w": tensor}, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=text):
            read_weights(tmp_path / "w.pt")

    def test_tied_weights_are_no_such_thing(self, tmp_path: Path) -> None:
        weight = torch.ones(100, 100)
        torch.save({"a": weight, "b": weight, "c": weight.T}, tmp_path / "w.pt")
        assert read_weights(tmp_path / "w.pt").only("a file").keys() == {"a", "b", "c"}

    @pytest.mark.parametrize(
        ("header", "length"),
        [
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 2**40),
            ({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, None),
            ({"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, None),
            ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, None),
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}}, None),
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, None),
            ({"w": {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]}}, None),
            ({"w": {"dtype": "code", "shape": [2], "data_offsets": [0, 8]}}, None),
            ({key: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for key in "ab"}, None),
            ({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, None),
        ],
        ids=["length", "size", "overflow", "negative", "offset", "backwards", "type", "no type", "overlap", "hole"],
    )
    def test_a_header_that_lies(self, tmp_path: Path, header: dict[str, Any], length: int | None) -> None:
        with pytest.raises(CheckpointError, match=r"w\.safetensors is damaged or not a safetensors file"):
            read_weights(with_header(tmp_path / "w.safetensors", header, bytes(8), length))

    def test_numbers_of_another_kind(self, tmp_path: Path) -> None:
        """The bytes of a float read as an integer are a number, too."""
        layer = nn.Linear(2, 1, bias=False)
        header = {"weight": {"dtype": "I32", "shape": [1, 2], "data_offsets": [0, 8]}}
        path = with_header(tmp_path / "w.safetensors", header, layer.weight.detach().numpy().tobytes())
        with pytest.raises(CheckpointError, match="of another kind: weight int32 instead of float32"):
            load_weights(layer, read_weights(path), "w.safetensors")
        with pytest.raises(CheckpointError, match="weight complex64 instead of float32"):
            load_weights(layer, WeightsFile({"": {"weight": layer.weight.detach() + 0j}}, {}), "w.pt")
        load_weights(layer, WeightsFile({"": {"weight": layer.weight.detach().half()}}, {}), "w.pt")

    def test_masks_of_a_type_that_multiplies_nothing(self, tmp_path: Path) -> None:
        odd = torch.ones(2).to(torch.float8_e5m2)
        torch.save({"w_orig": odd, "w_mask": odd}, tmp_path / "w.pt")
        assert read_weights(tmp_path / "w.pt").only("a file").keys() == {"w_orig", "w_mask"}


class TestLoading:
    def test_copies_in_place(self) -> None:
        source, target = network(), network()
        place = target[0].weight.data_ptr()
        load_weights(target, WeightsFile({"": source.state_dict()}, {}), "w.pt")
        assert torch.equal(source[0].weight, target[0].weight)
        assert target[0].weight.data_ptr() == place

    def test_names_all_mistakes_at_once_and_changes_nothing(self) -> None:
        model = network()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
        state["extra.weight"] = state.pop("2.bias")
        state["0.weight"] = torch.ones(4, 6)
        with pytest.raises(CheckpointError) as caught:
            load_weights(model, WeightsFile({"": state}, {}), "w.pt")
        for part in ("w.pt", "missing: 2.bias", "extra.weight", "0.weight [4, 6] instead of [5, 6]", "saved from"):
            assert part in str(caught.value)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    def test_long_lists_are_cut(self) -> None:
        state = network().state_dict() | {f"extra{i}": torch.ones(1) for i in range(100)}
        with pytest.raises(CheckpointError, match="extra5 and 94 more"):
            load_weights(network(), WeightsFile({"": state}, {}), "w.pt")

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    def test_names_the_tensor_that_is_not_finite(self, value: float) -> None:
        state = network().state_dict()
        state["2.weight"][1, 1] = value
        with pytest.raises(CheckpointError, match=r"NaN or infinite values in 2\.weight:"):
            load_weights(network(), WeightsFile({"": state}, {}), "w.pt")

    def test_a_number_too_large_for_the_network_is_infinite(self) -> None:
        state = {name: tensor.double() + 1e300 for name, tensor in network().state_dict().items()}
        with pytest.raises(CheckpointError, match="infinite"):
            load_weights(network(), WeightsFile({"": state}, {}), "w.pt")

    def test_a_buffer_may_be_infinite_but_no_nan(self) -> None:
        model = nn.Linear(2, 2)
        model.register_buffer("mask", torch.full((2,), -torch.inf))
        load_weights(model, WeightsFile({"": model.state_dict()}, {}), "w.pt")
        with pytest.raises(CheckpointError, match="mask"):
            load_weights(
                model, WeightsFile({"": model.state_dict() | {"mask": torch.full((2,), torch.nan)}}, {}), "w.pt"
            )

    def test_slim_file_in_a_dense_network_shows_the_way(self, tmp_path: Path) -> None:
        shrunk(tmp_path / "slim.safetensors")
        with pytest.raises(CheckpointError, match=r"compress\.load\(path, model=\.\.\.\)"):
            load_weights(network(), read_weights(tmp_path / "slim.safetensors"), "slim.safetensors")


class TestRebuilding:
    def test_slim(self, tmp_path: Path) -> None:
        small, inputs = shrunk(tmp_path / "slim.safetensors"), torch.randn(4, 6)
        found = load(tmp_path / "slim.safetensors", model=network)
        assert found[0].weight.shape == (2, 6)
        assert not found.training
        assert torch.equal(found(inputs), small(inputs))
        assert found.shape_edits == small.shape_edits

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_dense(self, tmp_path: Path, name: str) -> None:
        model, inputs = network(), torch.randn(4, 6)
        write_weights(model.state_dict(), tmp_path / name)
        assert torch.equal(load(tmp_path / name, model=network)(inputs), model(inputs))

    def test_another_network_is_refused_with_the_file_s_name(self, tmp_path: Path) -> None:
        shrunk(tmp_path / "slim.safetensors")
        with pytest.raises(CheckpointError, match=r"slim\.safetensors"):
            load(
                tmp_path / "slim.safetensors", model=lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
            )

    def test_damaged_edits(self, tmp_path: Path) -> None:
        write_weights(network().state_dict(), tmp_path / "w.safetensors", {"shape_edits": "[{]"})
        with pytest.raises(CheckpointError, match=r"w\.safetensors"):
            load(tmp_path / "w.safetensors", model=network)


class TestWriting:
    def test_another_library_reads_it_metadata_included(self, tmp_path: Path) -> None:
        state = network().state_dict()
        write_weights(state, tmp_path / "w.safetensors", {"recipe": "{}"})
        found = safetensors.numpy.load_file(tmp_path / "w.safetensors")
        assert all(np.array_equal(found[name], tensor.numpy()) for name, tensor in state.items())
        assert read_weights(tmp_path / "w.safetensors").metadata == {"recipe": "{}"}

    @pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
    def test_tied_tensors_and_views_are_written_in_full(self, tmp_path: Path, name: str) -> None:
        large = torch.arange(100_000.0).reshape(100, 1000)
        state = {"a": large[:3, ::2], "b": large[:3, ::2], "t": large[:2, :5].T}
        write_weights(state, tmp_path / name)
        found = read_weights(tmp_path / name).only("a file")
        assert all(torch.equal(found[key], state[key]) for key in state)
        assert (tmp_path / name).stat().st_size < 20_000

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_same_tensors_same_bytes(self, tmp_path: Path, suffix: str) -> None:
        state = network().state_dict()
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            write_weights(state, path)
        assert paths[0].read_bytes() == paths[1].read_bytes()

    @pytest.mark.parametrize("name", ["w.bin", "w"])
    def test_other_suffixes_are_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError, match=r"\.safetensors"):
            write_weights({}, tmp_path / name)

    def test_metadata_needs_safetensors(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="metadata"):
            write_weights(network().state_dict(), tmp_path / "w.pt", {"a": "b"})
        assert not list(tmp_path.iterdir())


class TestAtomic:
    def test_replaces_on_success(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with atomic(path) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".txt"
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_leaves_the_old_file_on_failure(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "a.txt"
        path.write_text("old")
        with pytest.raises(error), atomic(path) as temporary:  # noqa: PT012
            temporary.write_text("half")
            raise error
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_others_may_read_it(self, tmp_path: Path) -> None:
        plain = tmp_path / "plain"
        plain.touch()
        for name in ("w.pt", "w.safetensors"):
            write_weights(network().state_dict(), tmp_path / name)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    @pytest.mark.parametrize("where", ["missing/w.pt", "file/w.pt", "folder"])
    def test_a_place_that_cannot_be_written(self, tmp_path: Path, where: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError, match=r"cannot write|is a folder; name a file"), atomic(tmp_path / where):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
