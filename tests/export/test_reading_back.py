"""Files are read back by a process that has nothing but them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import compress.export
from compress.errors import ProofError
from compress.export import reading_back, stranger
from compress.export.reading_back import Network, peak_memory, read_back
from compress.models import autoencoder

CODE = """\
import functools

import torch
from torch import nn

class Words(nn.Module):
    def __init__(self, width=6, dtype="float32"):
        super().__init__()
        self.words = nn.Embedding(11, width, dtype=getattr(torch, dtype))
        self.head = nn.Linear(width, 2, dtype=getattr(torch, dtype))

    def forward(self, ids, scale=1.0, mask=None):
        hidden = self.words(ids) * scale
        return {"logits": self.head((hidden * mask.unsqueeze(-1)).mean(1)), "hidden": hidden}


TABLE = torch.linspace(0, 1, 9)

@functools.lru_cache(None)
def ramp(length):
    return torch.arange(length) / length

class Caching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.tables, self.longest, self.shift = {}, torch.zeros(1), torch.tensor(0.5)

    def forward(self, x):
        length = x.shape[1]
        if length not in self.tables:
            self.tables[length] = torch.arange(length).cos()
        if len(self.longest) < length:
            self.longest = torch.arange(length).sin()
        places = self.tables[length] + ramp(length) + TABLE[:length] + self.longest[:length] + self.shift
        hidden = self.b(self.a(x) * places.unsqueeze(-1))
        return self.c(hidden.unflatten(-1, (2, 4)).transpose(2, 3).tanh().transpose(2, 3).flatten(2)).mean(1)
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """A class in a file of the user's own."""
    (tmp_path / "words_of_a_stranger.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "words_of_a_stranger", raising=False)
    import words_of_a_stranger  # type: ignore[import-not-found]

    found: type[nn.Module] = words_of_a_stranger.Words
    return found


def network(**args: Any) -> Network:
    return {"factory": "words_of_a_stranger:Words", "args": args}


def example(dtype: torch.dtype = torch.float32) -> compress.Inputs:
    mask = torch.rand(3, 5, dtype=torch.float64).to(dtype)
    return compress.Inputs((torch.randint(11, (3, 5)), 2.0), {"mask": mask})


DYNAMIC = {"ids": {1: "length"}, "mask": {1: "length"}}


@pytest.mark.extended
@pytest.mark.fresh_process
def test_each_kind_of_file_at_several_sizes(
    words: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = words(width=80).eval(), example()
    nn.init.sparse_(model.words.weight, 0.8)
    compress.export.onnx(model, tmp_path / "m.onnx", given, dynamic=DYNAMIC)
    compress.export.pt2(model, tmp_path / "m.pt2", given, dynamic=DYNAMIC)
    compress.export.safetensors(model, tmp_path / "m.safetensors")
    compress.export.sparse(model, tmp_path / "m.sparse.safetensors")
    assert b"words.weight:places" in (tmp_path / "m.sparse.safetensors").read_bytes()
    files = {tmp_path / f"m.{kind}": model for kind in ("onnx", "pt2", "safetensors", "sparse.safetensors")}
    started: list[list[Any]] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **kwargs: started.append(command) or run(command, **kwargs))  # type: ignore[func-returns-value]
    found = read_back(files, given, network=network(width=80), dynamic=DYNAMIC)
    assert found.keys() == {"m.onnx", "m.pt2", "m.safetensors", "m.sparse.safetensors"}
    assert max(found.values()) <= 1e-5
    assert len(started) == 1
    assert not list(Path(started[0][-1]).parent.glob(Path(started[0][-1]).name))  # nothing is left


@pytest.mark.extended
def test_each_kind_is_read_by_its_library_alone(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    compress.export.onnx(model, tmp_path / "m.onnx", torch.randn(2, 4))
    compress.export.pt2(model, tmp_path / "m.pt2", torch.randn(2, 4))
    job = {"by_position": 1, "threads": 1, "files": [], "inputs": 0, "path": sys.path}
    code = f"""if True:
        import json, runpy, sys
        script = runpy.run_path({stranger.__file__!r})
        loaded = lambda: sorted({{"torch", "compress", "onnxruntime"}} & sys.modules.keys())
        job = json.loads({json.dumps(json.dumps(job))})
        found = [loaded()]
        script["_onnx"]({str(tmp_path / "m.onnx")!r}, job)
        found += [loaded()]
        script["_program"]({str(tmp_path / "m.pt2")!r}, job)
        print(json.dumps([*found, loaded()]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == [[], ["onnxruntime"], ["onnxruntime", "torch"]]


@pytest.mark.fresh_process
def test_a_waiting_process_reads_all_but_onnx_files(tmp_path: Path) -> None:
    model, given = autoencoder(latent=4).eval(), torch.rand(2, 1, 28, 28)
    files = {tmp_path / f"m.{kind}": model for kind in ("pt2", "onnx", "safetensors")}
    built: Network = {"factory": "compress.models:autoencoder", "args": {"latent": 4}}
    with reading_back.waiting([".onnx", ".pt2"]) as early:
        compress.export.onnx(model, tmp_path / "m.onnx", given)
        compress.export.pt2(model, tmp_path / "m.pt2", given)
        compress.export.safetensors(model, tmp_path / "m.safetensors")
        found = read_back(files, given, early=early, network=built)
        made = {path.name for path in early.folder.glob("?-0.npz")}
    assert list(found) == [path.name for path in files]
    assert found["m.safetensors"] == 0.0
    assert max(found.values()) <= 1e-5
    assert made == {"0-0.npz", "1-0.npz"}
    assert early.process.returncode == 0
    assert not early.folder.exists()


@pytest.mark.fresh_process
def test_a_job_may_come_before_the_imports_are_done(tmp_path: Path) -> None:
    """The limit of memory must have room for torch, whenever it is set."""
    model = autoencoder(latent=4).eval()
    compress.export.safetensors(model, tmp_path / "m.safetensors")
    built: Network = {"factory": "compress.models:autoencoder", "args": {"latent": 4}}
    with reading_back.waiting([".safetensors"]) as early:
        found = read_back({tmp_path / "m.safetensors": model}, torch.rand(2, 1, 28, 28), early=early, network=built)
    assert found == {"m.safetensors": 0.0}


@pytest.mark.fresh_process
def test_a_waiting_process_that_fails_is_an_error(tmp_path: Path) -> None:
    compress.export.safetensors(nn.Linear(2, 2), tmp_path / "m.safetensors")
    with reading_back.waiting([".safetensors"]) as early:
        early.process.kill()
        with pytest.raises(ProofError, match="the fresh process that reads them back ended with -9"):
            read_back({tmp_path / "m.safetensors": nn.Linear(2, 2)}, torch.randn(2, 2), early=early)


@pytest.mark.fresh_process
def test_a_waiting_process_that_cannot_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compress.export.safetensors(nn.Linear(2, 2), tmp_path / "m.safetensors")
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(reading_back, "_path", lambda: ["x" * 2**20])  # more than a pipe holds
    with (
        reading_back.waiting([".safetensors"]) as early,
        pytest.raises(ProofError, match="the fresh process that reads them back ended with 1"),
    ):
        read_back({tmp_path / "m.safetensors": nn.Linear(2, 2)}, torch.randn(2, 2), early=early)


@pytest.mark.fresh_process
def test_a_waiting_process_ends_with_its_block() -> None:
    with pytest.raises(KeyboardInterrupt), reading_back.waiting([".safetensors"]) as early:
        raise KeyboardInterrupt
    assert early.process.returncode == -9
    assert not early.folder.exists()


@pytest.mark.fresh_process
def test_a_waiting_process_without_a_job_ends_when_nobody_can_give_it_one() -> None:
    with reading_back.waiting([".onnx"]) as early:
        early.process.communicate(timeout=60)
        assert early.process.returncode == 1


def test_a_waiting_process_has_imported_nothing_that_helps_a_program(tmp_path: Path) -> None:
    asked = json.dumps({"path": sys.path, "modules": stranger.IMPORTED[".pt2"]})
    code = f"""if True:
        import runpy, sys
        runpy.run_path({stranger.__file__!r})["wait"]()
        print(sorted({{"torch", "compress", "onnxruntime"}} & sys.modules.keys()))
    """
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_types_travel_as_they_are(dtype: str, words: type[nn.Module], tmp_path: Path) -> None:
    model, given = words(dtype=dtype).eval(), example(getattr(torch, dtype))
    compress.export.pt2(model, tmp_path / "m.pt2", given)
    compress.export.safetensors(model, tmp_path / "m.safetensors")
    files = {tmp_path / "m.pt2": model, tmp_path / "m.safetensors": model}
    assert set(read_back(files, given, network=network(dtype=dtype)).values()) == {0.0}


@pytest.mark.fresh_process
def test_constants_of_a_graph_that_caches_have_warmed(words: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module: Any = sys.modules[words.__module__]
    model, given = module.Caching().eval(), torch.randn(2, 5, 6)
    for length in (3, 9):
        model(torch.randn(2, length, 6))
    model.shift = torch.tensor(2.0)  # which a new network does not have
    with torch.no_grad():
        model.b.weight[[0, 4]] = model.b.bias[[0, 4]] = 0.0
        model.c.weight[:, [0, 4]] = 0.0
    small = compress.slim(model, given)
    assert isinstance(small, fx.GraphModule)
    compress.export.safetensors(small, tmp_path / "m.safetensors")
    build: Network = {"factory": f"{words.__module__}:Caching", "args": {}}
    assert read_back({tmp_path / "m.safetensors": small}, given, network=build) == {"m.safetensors": 0.0}


def test_a_file_that_computes_something_else(words: type[nn.Module], tmp_path: Path) -> None:
    compress.export.safetensors(words(), tmp_path / "m.safetensors")
    with pytest.raises(ProofError, match=r"m\.safetensors, read back in .*, computes something else.*newly built"):
        read_back({tmp_path / "m.safetensors": words()}, example(), network=network())


def test_a_file_that_does_not_fit_a_new_network(words: type[nn.Module], tmp_path: Path) -> None:
    model = words()
    compress.export.safetensors(model, tmp_path / "m.safetensors")
    with pytest.raises(ProofError, match=r"m\.safetensors.*fresh process, fails: .*does not fit the network Words"):
        read_back({tmp_path / "m.safetensors": model}, example(), network=network(width=7))


@pytest.mark.fresh_process
@pytest.mark.parametrize(
    ("body", "seconds", "match"),
    [
        ("os._exit(3)", 50.0, r"m\.safetensors: the fresh process .*ended with 3"),
        ("time.sleep(100)", -9.0, "took longer than 1 s"),
    ],
)
def test_a_process_that_does_not_end_well(
    body: str, seconds: float, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Linear(4, 2)
    compress.export.safetensors(model, tmp_path / "m.safetensors")
    monkeypatch.setattr(reading_back, "_SECONDS", seconds)
    monkeypatch.setattr(reading_back, "_PATIENCE", 0)
    (tmp_path / "ending.py").write_text(f"import os, time\n\ndef build():\n    {body}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProofError, match=match):
        read_back(
            {tmp_path / "m.safetensors": model}, torch.randn(2, 4), network={"factory": "ending:build", "args": {}}
        )


def test_what_a_file_gave_is_compared_for_each_input(tmp_path: Path) -> None:
    class Shifting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    compress.export.onnx(Shifting(), tmp_path / "m.onnx", torch.randn(2, 4))
    with pytest.raises(ProofError, match="batch size 1"):
        read_back({tmp_path / "m.onnx": nn.Identity()}, torch.randn(2, 4))


@pytest.mark.fresh_process
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the memory of a process")
def test_a_file_takes_the_memory_of_its_weights_more_than_a_small_one(tmp_path: Path) -> None:
    """onnxruntime itself takes the same for both; weights that fill pages appear to the megabyte."""
    found = {}
    for width in (8, 2048):
        model, path = nn.Linear(width, width).eval(), tmp_path / f"{width}.onnx"
        compress.export.onnx(model, path, torch.zeros(2, width))
        found[width] = peak_memory(path, model, torch.zeros(2, width), [1, 2])
    small, large = found[8], found[2048]
    assert small is not None
    assert large is not None
    assert 4 * 2048**2 - 2e6 < large - small < 2.5 * 4 * 2048**2
