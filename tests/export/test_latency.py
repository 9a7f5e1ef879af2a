import gc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from compress.errors import InputError
from compress.export import latency
from compress.export.latency import Latency, Timings, measure


def write(path: Path, *shape: int | str, dtype: int = TensorProto.FLOAT) -> Path:
    """A network that doubles its input."""
    given, result = (helper.make_tensor_value_info(name, dtype, shape) for name in ("input", "output"))
    graph = helper.make_graph([helper.make_node("Add", ["input", "input"], ["output"])], "g", [given], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {name: write(tmp_path / f"{name}.onnx", "batch", 4) for name in ("dense", "slim")}


def test_every_figure_is_there_and_in_order(files: dict[str, Path]) -> None:
    timings = measure(files, batch_sizes=(1, 8), rounds=6, seconds=0.05)
    summary = timings.summary()
    assert summary.keys() == files.keys()
    for name in files:
        assert summary[name].keys() == {"1", "8"}
        for batch, found in summary[name].items():
            assert 0 < found.min <= found.p50 <= found.p90 <= found.p99
            assert found.runs == timings.milliseconds[name, int(batch)].size >= 6


def test_the_first_batch_size_has_thirty_runs_however_little_time_there_is(files: dict[str, Path]) -> None:
    timings = measure(files, batch_sizes=(4, 1), rounds=7, seconds=0.0)
    runs = {key: times.size for key, times in timings.milliseconds.items()}
    assert min(runs["dense", 4], runs["slim", 4]) >= 30
    assert max(runs["dense", 1], runs["slim", 1]) < 30


def test_percentiles_and_ratio_by_hand() -> None:
    slow_and_slower = np.array([[2.0, 2.0, 9.0], [4.0, 4.0, 4.0], [8.0, 9.0, 7.0]])
    timings = Timings(1, {("a", 1): slow_and_slower, ("b", 1): slow_and_slower / 2})
    times = sorted(slow_and_slower.flatten())
    assert timings.summary()["a"]["1"] == Latency(
        p50=times[4],
        p90=pytest.approx(np.quantile(times, 0.9)),
        p99=pytest.approx(np.quantile(times, 0.99)),
        min=2.0,
        runs=9,
    )
    assert timings.ratio("a", "b", 1) == 2.0
    found = timings.document("b")
    assert found["threads"] == timings.threads
    assert found["runtimes"] == {}
    assert found["models"]["a"]["1"]["ratio"] == 2.0
    assert found["models"]["b"]["1"]["ratio"] == 1.0
    assert found["models"]["a"]["1"]["p50"] == timings.summary()["a"]["1"].p50
    assert timings.ratio("b", "a", 1) == 0.5
    quantiles = found["models"]["a"]["1"]["quantiles"]
    assert quantiles == pytest.approx(np.quantile(times, np.linspace(0, 1, 21)), rel=1e-4)


def test_the_ratio_is_paired_by_rounds() -> None:
    # The machine slows down tenfold in the middle: the medians of all runs lie between two machines.
    machine = np.array([1.0, 1, 1, 10, 10, 10])[:, None]
    wobble = np.array([1.0, 1, 1.1, 0.9, 1, 1])[:, None]
    timings = Timings(1, {("a", 1): 1.5 * machine * wobble, ("b", 1): machine})
    assert timings.ratio("a", "b", 1) == 1.5


def test_models_take_turns_without_garbage_collection(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []
    run_once = latency._time

    def recorded(run: latency.Run) -> float:
        order.append((id(run), gc.isenabled()))
        return run_once(run)

    monkeypatch.setattr(latency, "_time", recorded)
    timings = measure(files, batch_sizes=(1,), rounds=10, seconds=0.0)
    assert timings.milliseconds["dense", 1].shape == (5, 6)  # no time: the fewest rounds, with the fewest runs
    assert gc.isenabled()
    timed = order[-70:]  # 5 rounds x 2 models x (1 to fill the caches + 6 timed)
    assert not any(enabled for _, enabled in timed)
    turns = [[model for model, _ in timed[start : start + 7]] for start in range(0, 70, 7)]
    assert all(len(set(models)) == 1 for models in turns)
    firsts = [models[0] for models in turns]
    assert all(one != other for one, other in zip(firsts[::2], firsts[1::2], strict=True))
    assert len(set(firsts[::2])) == 2  # not always the same one first


def test_onnxruntime_and_torch_take_turns(files: dict[str, Path]) -> None:
    """Batches of any size are made of the example, in evaluation mode; threads and mode are as before."""
    seen: list[tuple[Any, ...]] = []

    class Seen(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((tuple(x.shape), self.training, torch.is_grad_enabled(), torch.get_num_threads()))
            return super().forward(x)

    network, threads = Seen(4, 4), torch.get_num_threads()
    found = measure({**files, "torch": (network, torch.ones(2, 4))}, batch_sizes=(1, 3), threads=2, seconds=0.0)
    assert found.runtimes == {"dense": "onnxruntime", "slim": "onnxruntime", "torch": "torch"}
    assert found.document("dense")["runtimes"] == found.runtimes
    assert set(seen) == {((1, 4), False, False, 2), ((3, 4), False, False, 2)}
    assert network.training
    assert torch.get_num_threads() == threads
    with pytest.raises(InputError, match="files, torch: found None; expected a network and its example"):
        measure({"torch": (None, torch.ones(2, 4))})  # type: ignore[dict-item]


def test_integers_and_fixed_batches(tmp_path: Path) -> None:
    files = {"int": write(tmp_path / "int.onnx", 3, 2, dtype=TensorProto.INT64)}
    assert measure(files, batch_sizes=(3,), seconds=0.0).summary()["int"]["3"].runs == 30
    with pytest.raises(InputError, match=r"int\.onnx: the input 'input' takes batches of 3 only, not 1"):
        measure(files, batch_sizes=(1,))


def test_a_second_dynamic_size_has_to_be_given(tmp_path: Path) -> None:
    files = {"a": write(tmp_path / "a.onnx", "batch", "width"), "b": write(tmp_path / "b.onnx", 5, "batch", "width")}
    with pytest.raises(InputError, match=r"a\.onnx.*'width'.*--sizes width=64"):
        measure(files)
    found = measure(files, batch_sizes=(2,), sizes={"width": 7}, seconds=0.0).summary()
    assert found["a"]["2"].runs == found["b"]["2"].runs == 30
    with pytest.raises(InputError, match="sizes, width: found 0"):
        measure(files, sizes={"width": 0})


@pytest.mark.parametrize("name", ["missing.onnx", "text.onnx", "empty.onnx"])
def test_a_file_that_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(InputError, match=name):
        measure({"a": tmp_path / name})


@pytest.mark.parametrize("wrong", [{"batch_sizes": ()}, {"batch_sizes": (1, 0)}, {"threads": 0}, {"rounds": 0}])
def test_nothing_to_time(files: dict[str, Path], wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}: found"):
        measure(files, **wrong)
    with pytest.raises(InputError, match="files: found"):
        measure({})
