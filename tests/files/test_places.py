"""Folders and shards as transformers, its Trainer and Accelerate save them, and indexes that lead elsewhere."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import compress
from compress.errors import CheckpointError
from compress.files.checkpoint import read_weights
from compress.files.places import digest, place, size_of
from compress.run.inspecting import inspect


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(3, 2))


STATE = build().state_dict()
NAMES = ["0.weight", "0.bias", "1.weight"], ["1.bias", "2.weight", "2.bias"]


def sharded(folder: Path, kind: str = "safetensors", change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """Two shards and their index."""
    folder.mkdir(exist_ok=True)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    weight_map = {}
    for number, names in enumerate(NAMES, 1):
        name = f"{stem}-0000{number}-of-00002.{kind}"
        part: dict[str, Tensor] = {each: STATE[each] for each in names}
        if kind == "bin":
            torch.save(part, folder / name)
        else:
            safetensors.torch.save_file(part, folder / name)
        weight_map |= dict.fromkeys(names, name)
    content = {"metadata": {"total_size": "a lot"}, "weight_map": weight_map}
    if change is not None:
        change(content)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(content))
    return folder / f"{stem}.{kind}.index.json"


def same(path: Path) -> bool:
    found = compress.load(path, model=build).state_dict()
    return all(torch.equal(tensor, STATE[name]) for name, tensor in found.items())


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_by_their_index_or_folder(kind: str, tmp_path: Path) -> None:
    index = sharded(tmp_path / "a", kind)
    assert same(index)
    assert same(index.parent)
    found = inspect(index.parent)
    shards = sorted(index.parent.glob(f"*.{kind}"))
    assert found["format"] == kind
    assert found["bytes"] == sum(path.stat().st_size for path in [index, *shards]) == size_of(place(index.parent))
    assert found["entries"] == sum(tensor.numel() for tensor in STATE.values())


@pytest.mark.parametrize("name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_one_file(name: str, tmp_path: Path) -> None:
    if name.endswith("bin"):
        torch.save(STATE, tmp_path / name)
    else:
        safetensors.torch.save_file(STATE, tmp_path / name)
    for other in ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth"):
        (tmp_path / other).write_bytes(b"no weights")
    assert same(tmp_path)


def test_folders_without_weights_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    sharded(tmp_path / "out" / "checkpoint-5")
    with pytest.raises(
        CheckpointError, match=r"name one of the folders in it that hold weights, such as .*checkpoint-5"
    ):
        read_weights(tmp_path / "out")
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").touch()
    with pytest.raises(CheckpointError, match="dcp_to_torch"):
        read_weights(tmp_path / "dcp")
    (tmp_path / "ds").mkdir()
    for name in ("bf16_optim_states.pt", "mp_rank_00_model_states.pt"):
        (tmp_path / "ds" / name).touch()
    with pytest.raises(CheckpointError, match=r"such as .*mp_rank_00_model_states"):
        read_weights(tmp_path / "ds")


def setting(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["weight_map"].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("0.bias", "../model.safetensors"), r"names the shard '\.\./model\.safetensors'"),
        (setting("0.bias", "/etc/passwd"), "names the shard '/etc/passwd'"),
        (setting("0.bias", "a\\b.safetensors"), "names the shard"),
        (setting("0.bias", "c:b.safetensors"), "names the shard"),
        (setting("0.bias", ".hidden.safetensors"), "names the shard"),
        (setting("0.bias", "code.py"), "names the shard 'code.py'"),
        (setting("0.bias", "x.safetensors"), r"names shards that are missing: x\.safetensors"),
        (setting("0.bias", 3), "is not an index of shards"),
        (setting("9.bias", "model-00001-of-00002.safetensors"), r"lacks tensors that .* says it has: 9\.bias"),
        (setting("0.bias", "model-00002-of-00002.safetensors"), "lacks tensors|has tensors"),
        (lambda content: content["weight_map"].pop("0.bias"), r"has tensors that .* does not give to it: 0\.bias"),
        (lambda content: content.pop("weight_map"), "is not an index of shards"),
        (lambda content: content["weight_map"].clear(), "is not an index of shards"),
    ],
)
def test_an_index_that_is_wrong(change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_weights(sharded(tmp_path / "a", change=change))


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"weight_map": {"a": "b.bin"}', "[" * 5000])
def test_an_index_that_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"cannot be read|is not an index"):
        read_weights(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_lead_nowhere_but_in_a_cache(tmp_path: Path) -> None:
    index = sharded(tmp_path / "a")
    shard = index.parent / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a link to another folder"):
        read_weights(index)
    shard.unlink()
    os.mkfifo(shard)
    with pytest.raises(CheckpointError, match="is a pipe"):
        read_weights(index)
    (tmp_path / "models--x" / "snapshots").mkdir(parents=True)
    blobs = tmp_path / "models--x" / "blobs"
    blobs.mkdir()
    cached = sharded(tmp_path / "models--x" / "snapshots" / "1")
    for path in list(cached.parent.iterdir()):
        path.rename(blobs / path.name[::-1])
        path.symlink_to(blobs / path.name[::-1])
    assert same(cached.parent)


def test_a_number_sign_in_a_name(tmp_path: Path) -> None:
    torch.save({"ema": STATE}, tmp_path / "a#b.pt")
    assert place(tmp_path / "a#b.pt").key is None
    assert place(Path(f"{tmp_path}/a#b.pt#ema")).key == "ema"
    with pytest.raises(CheckpointError, match="does not exist"):
        place(tmp_path / "c.pt#ema")


def test_the_digest_changes_with_each_part(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"ema": STATE, "model": STATE}, path)
    assert digest(place(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    keys = {digest(place(Path(f"{path}{key}"))) for key in ("", "#ema", "#model")}
    assert len(keys) == 3
    index = sharded(tmp_path / "a")
    before = digest(place(index))
    shard = index.parent / "model-00002-of-00002.safetensors"
    safetensors.torch.save_file({name: STATE[name] + 1 for name in NAMES[1]}, shard)
    assert digest(place(index)) != before == before


# --- as libraries save them ---


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return BertForSequenceClassification(BertConfig(vocab_size=60, max_position_embeddings=8, **sizes))


@pytest.mark.extended
def test_transformers_shards(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    model = bert()
    model.save_pretrained(tmp_path / "many", max_shard_size="2KB")
    model.save_pretrained(tmp_path / "one")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    for folder in ("many", "one"):
        found = compress.load(tmp_path / folder, model=bert).state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())
        base = compress.load(tmp_path / folder, model=lambda: bert().bert).state_dict()
        assert all(torch.equal(tensor, base[name]) for name, tensor in model.bert.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*LeafSpec")
@pytest.mark.extended
def test_lightning_saves_what_it_trains(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, path: Path, lr: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net, self.loss = build(), nn.Linear(2, 1)

        def training_step(self, batch: Tensor, _: int) -> Tensor:
            return self.loss(self.net(batch)).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), self.hparams["lr"])

    module = Module(tmp_path, 0.1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_steps=2, enable_checkpointing=False, barebones=False, **quiet)
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(4, 6)))
    trainer.save_checkpoint(tmp_path / "w.ckpt")
    found = compress.load(tmp_path / "w.ckpt", model=build).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in module.net.state_dict().items())
    assert read_weights(tmp_path / "w.ckpt").others["hyper_parameters"] == ["pathlib.PosixPath"]
