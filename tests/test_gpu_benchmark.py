"""benchmarks/gpu.py, where there is no GPU: every section that a CPU can run, and what becomes of those that fail."""

import importlib
import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return importlib.import_module("gpu")


def run(gpu: Any, **options: Any) -> int:
    given = {"device": "cpu", "quick": True, "only": "", "again": False, "minutes": 8.0, "report": None, **options}
    with pytest.raises(typer.Exit) as ended:
        gpu.main(**given)
    return int(ended.value.exit_code)


def fakes(gpu: Any, monkeypatch: pytest.MonkeyPatch, **checks: Any) -> list[str]:
    """These checks in place of all, and one time; what is run, in its order."""
    ran: list[str] = []

    def noting(name: str, section: Any) -> Any:
        def noted(case: Any) -> Iterator[Any]:
            """A fake."""
            ran.append(name)
            yield from section(case)

        return noted

    def figure(case: Any) -> Iterator[Any]:
        yield gpu.Row("a figure", 1.5)

    monkeypatch.setattr(gpu, "CHECKS", checks)
    sections = {**checks, "figures": figure}
    monkeypatch.setattr(gpu, "SECTIONS", {name: noting(name, section) for name, section in sections.items()})
    return ran


def right(case: Any) -> Iterator[Any]:
    yield importlib.import_module("gpu_rows").equal("one", 1, 1)


def wrong(case: Any) -> Iterator[Any]:
    yield from right(case)
    yield importlib.import_module("gpu_rows").equal("two", 2, 3)


def failing(case: Any) -> Iterator[Any]:
    yield from right(case)
    raise RuntimeError("no kernel image")


def for_gpus(case: Any) -> Iterator[Any]:
    case.require_gpu()
    yield from right(case)


def endless(case: Any) -> Iterator[Any]:
    yield from right(case)
    while True:
        time.sleep(0.01)


def test_all_as_expected(gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = fakes(gpu, monkeypatch, right=right, for_gpus=for_gpus)
    assert run(gpu, report=tmp_path / "new" / "gpu.json") == 0
    assert ran == ["right", "for_gpus", "figures"]
    found = json.loads((tmp_path / "new" / "gpu.json").read_text(encoding="utf-8"))
    assert {name: section["status"] for name, section in found["sections"].items()} == {
        "right": "done",
        "for_gpus": "needs a CUDA device",
        "figures": "done",
    }
    assert found["sections"]["right"]["rows"] == [{"name": "one", "result": 1, "expected": 1, "passed": True}]
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["quick"] is True
    assert found["versions"]["torch"] == version("torch")


@pytest.mark.parametrize("section", [wrong, failing])
def test_a_check_that_fails_is_recorded_and_the_rest_goes_on(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, section: Any
) -> None:
    ran = fakes(gpu, monkeypatch, bad=section, right=right)
    assert run(gpu, report=tmp_path / "gpu.json") == 1
    assert ran == ["bad", "right", "figures"]
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["sections"]
    assert found["right"]["status"] == found["figures"]["status"] == "done"
    assert found["bad"]["rows"][0]["passed"] is True
    if section is wrong:
        assert found["bad"]["rows"][1] == {"name": "two", "result": 2, "expected": 3, "passed": False}
    else:
        assert (found["bad"]["status"], found["bad"]["error"]) == ("failed", "RuntimeError: no kernel image")


def test_the_time_ends_a_section_and_keeps_its_rows(gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = fakes(gpu, monkeypatch, endless=endless, right=right)
    assert run(gpu, minutes=0.01, report=tmp_path / "gpu.json") == 1
    assert ran == ["endless"]
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["sections"]
    assert {section["status"] for section in found.values()} == {"out of time"}
    assert len(found["endless"]["rows"]) == 1


def test_a_second_run_repeats_what_has_no_result(gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = {"report": tmp_path / "gpu.json"}
    fakes(gpu, monkeypatch, bad=failing, right=right)
    assert run(gpu, **options) == 1
    ran = fakes(gpu, monkeypatch, bad=right, right=right)
    assert run(gpu, **options) == 0
    assert ran == ["bad"]
    assert run(gpu, again=True, **options) == 0
    assert ran == ["bad", "bad", "right", "figures"]
    assert run(gpu, quick=False, **options) == 0  # other sizes: nothing of the file counts
    assert len(ran) == 7


@pytest.mark.parametrize("options", [{"device": "tpu"}, {"only": "choice,nothing"}])
def test_what_does_not_exist_is_named(gpu: Any, capsys: pytest.CaptureFixture[str], options: dict[str, str]) -> None:
    assert run(gpu, **options) == 2
    assert next(iter(options.values())).split(",")[-1] in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(gpu, device="cuda") == 2
    assert "torch finds no such device here" in capsys.readouterr().err


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
def test_every_section_runs_on_a_cpu(gpu: Any, tmp_path: Path) -> None:
    assert run(gpu, report=tmp_path / "gpu.json") == 0
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["sections"]
    assert found.keys() == gpu.SECTIONS.keys()
    for_gpus = {name for name, section in found.items() if section["status"] == "needs a CUDA device"}
    assert for_gpus == {"CUDA graphs", "N:M"}
    assert {section["status"] for name, section in found.items() if name not in for_gpus} == {"done"}
    assert all(found[name]["rows"] for name in found.keys() - for_gpus)
