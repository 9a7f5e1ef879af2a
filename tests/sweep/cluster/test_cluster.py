"""A real cluster of two machines, as far as one can have them: the second does not see the folder of the sweep.

It is a raylet in a mount namespace of its own, where an empty file system lies over the tests' folder. One that it
does see is for its own copies.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.errors import InputError, LostWorkerError
from compress.recipe.loading import load_recipe
from compress.sweep import jobs
from compress.sweep.cell_store import Cells
from compress.sweep.cells import Basis, compute
from compress.sweep.cluster.carried import Carried
from compress.sweep.cluster.node import FOLDER
from compress.sweep.cluster.pool import LostClusterWarning
from compress.sweep.compare.cells import StageCell
from compress.sweep.engines import ONE, Workers
from compress.sweep.trained import Trained

RECIPE = """
name: own
model: {factory: "own_network:build"}
data: {npz: images.npz, batch_size: 8}
task: classify
stages:
  - target: {weights: ["*"]}
    criterion: magnitude
    sparsity: 0.5
    removal: hard
    retrain: {epochs: 2, optimizer: sgd, lr: 1e-2}
"""

NETWORK = """
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 2))
"""

STARTS = 120
"""Seconds that a part of a cluster may take to start, on a machine with other work."""


def isolates() -> bool:
    try:
        return subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True).returncode == 0
    except OSError:
        return False


isolated = pytest.mark.skipif(not isolates(), reason="the system allows no mount namespaces (unshare)")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


class Machines:
    """Heads and nodes, each a process group that is ended by its number."""

    def __init__(self, folder: Path, hidden: Path) -> None:
        self.folder, self.hidden = folder, hidden
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    def cache(self, name: str) -> Path:
        return self.folder / f"cache of {name}"

    def start(self, name: str, *arguments: str, before: tuple[str, ...] = ()) -> None:
        # --block keeps all processes of a part in one group.
        ray = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")
        small = ("--num-cpus", "1", "--object-store-memory", "80000000")
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*before, *ray, *small, *arguments],
                env=os.environ | {FOLDER: str(self.cache(name))},
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def head(self) -> None:
        client = ("--ray-client-server-port", str(free_port()))  # the usual one may belong to another cluster
        own = ("--include-dashboard", "false", "--temp-dir", str(self.folder / "r"), *client)
        self.start("head", "--head", "--node-ip-address", "127.0.0.1", "--port", str(self.port), *own)

    def node(self) -> None:
        cover = f'mount -t tmpfs none "{self.hidden}" && exec "$@"'
        before = ("unshare", "--mount", "--map-root-user", "sh", "-c", cover, "sh")
        self.start("node", "--address", self.address, "--node-ip-address", "127.0.0.1", before=before)

    def wait(self, *names: str) -> None:
        """Until these have started."""
        deadline = time.monotonic() + STARTS
        logs = {name: self.folder / f"{name}.log" for name in names}
        while not all(b"Ray runtime started" in log.read_bytes() for log in logs.values()):
            ended = [name for name in names if self._running[name].poll() is not None]
            said = "\n".join(logs[name].read_text() for name in ended or names)
            assert not ended, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def kill(self, name: str) -> None:
        group = self._running.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(group.pid, signal.SIGKILL)
        group.wait()

    def end(self) -> None:
        for name in list(self._running):
            self.kill(name)


@pytest.fixture
def machines(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machines]:
    """A head, which the sweep runs on; the tests start other parts."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    found = Machines(tmp_path_factory.mktemp("m"), tmp_path)
    token = found.folder / "token"
    token.write_text("0" * 64, encoding="utf-8")
    token.chmod(0o600)
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": found.address,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "4",  # else a lost head is noticed after a minute
    }.items():
        monkeypatch.setenv(name, value)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    found.head()
    try:
        found.wait("head")
        yield found
    finally:
        found.end()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


# --- without a shared path ---


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Basis, Trained]:
    """A recipe with its own module, data and network in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("own_network.py").write_text(NETWORK, encoding="utf-8")
    Path("own.yaml").write_text(RECIPE, encoding="utf-8")
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    np.savez("images.npz", images=images, labels=(images.mean((1, 2, 3)) > 127).astype(np.int64))
    torch.manual_seed(0)
    scope: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(NETWORK, scope)
    torch.save(scope["build"]().state_dict(), "model.pt")
    return Basis(load_recipe("own.yaml", []), Path("data"), "cpu"), Trained.of(Path("model.pt"))


def figures(results: list[object]) -> list[object]:
    return [{name: value for name, value in dict(one).items() if name != "seconds"} for one in results]  # type: ignore[call-overload]


@isolated
@pytest.mark.slow
def test_a_node_without_the_files_gets_them_once_and_has_the_same_figures(
    own: tuple[Basis, Trained], machines: Machines, tmp_path: Path
) -> None:
    basis, trained = own
    machines.node()
    machines.wait("node")
    (stage,) = basis.recipe.stages
    wanted = [(f"seed {seed}", StageCell(trained, stage, seed)) for seed in range(12)]
    found = compute(wanted, basis, Cells(tmp_path / "cells"), Workers(2, "ray"))
    expected = compute(wanted, basis, Cells(tmp_path / "local"), ONE)
    assert figures(found) == figures(expected)  # type: ignore[arg-type]
    copied = [path for path in machines.cache("node").rglob("[!.]*") if path.is_file() and path.suffix != ".lock"]
    assert sorted(path.name for path in copied) == ["images.npz", "model.pt", "own_network.py"]
    for path in copied:
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    shared = machines.cache("head")
    assert not [path for path in shared.rglob("*") if path.suffix in (".npz", ".pt", ".py")], "it sees them"


# --- lost machines ---


def held(log: Path, name: str, gate: Path, written: Path | None = None) -> dict[str, object]:
    """Begin, and end when there is a gate; then write a file."""
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{name} {os.environ[FOLDER]}\n")
    while not gate.exists():
        time.sleep(0.05)
    if written is not None:
        (written / name).write_text(f"by {name}", encoding="utf-8")
    return {"name": name}


def begun(log: Path) -> list[list[str]]:
    """The name of each cell that has begun, and the cache of its machine."""
    return [line.split(maxsplit=1) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


@isolated
@pytest.mark.slow
def test_the_cells_of_a_lost_node_are_computed_on_another_and_counted_once(machines: Machines) -> None:
    log, gate, seen = machines.folder / "log", machines.folder / "gate", list[jobs.Progress]()
    machines.node()
    machines.wait("node")
    open_gate, on_node = machines.folder / "open", str(machines.cache("node"))
    open_gate.touch()

    def told(now: jobs.Progress) -> None:
        """At the first end: the other machine's cell is running, and its machine is lost."""
        seen.append(now)
        if not gate.exists():
            while on_node not in [place for name, place in begun(log) if name != "short"]:
                time.sleep(0.05)
            machines.kill("node")
            gate.touch()

    networks = machines.folder / "networks"
    gates = {"short": open_gate, "a": gate, "b": gate}
    todo = [
        jobs.Job(name, name, partial(held, log, name, own, networks), carried=lambda: Carried(written=str(networks)))
        for name, own in gates.items()
    ]
    done = jobs.run(todo, Cells(machines.folder / "cells"), Workers(3, "ray"), told)
    assert {result["name"] for result in done.values()} == {"short", "a", "b"}
    assert [one.done for one in seen] == [1, 2, 3]
    assert {path.name: path.read_text() for path in networks.glob("[!.]*")} == {name: f"by {name}" for name in gates}
    (lost,) = {name for name, place in begun(log) if place == on_node and name != "short"}
    assert [place for name, place in begun(log) if name == lost] == [on_node, str(machines.cache("head"))]


@pytest.fixture
def todo(machines: Machines) -> list[jobs.Job]:
    """One cell that ends, and one after it that ends when there is a gate."""
    log, gate, open_gate = (machines.folder / name for name in ("log", "gate", "open"))
    open_gate.touch()
    return [
        jobs.Job("a", "a", partial(held, log, "a", open_gate)),
        jobs.Job("b", "b", partial(held, log, "b", gate), needs=("a",)),
    ]


def lose_head(machines: Machines, then: Callable[[], None] = lambda: None) -> None:
    """Kill it when the second cell is running there."""
    while "b" not in [name for name, _ in begun(machines.folder / "log")]:
        time.sleep(0.05)
    machines.kill("head")
    then()


@pytest.mark.slow
def test_after_the_heads_death_the_same_command_resumes(machines: Machines, todo: list[jobs.Job]) -> None:
    folder = machines.folder / "cells"
    with ThreadPoolExecutor(1) as beside:
        beside.submit(lose_head, machines)
        with (
            pytest.warns(LostClusterWarning, match=rf"{machines.address} is lost; waiting up to 1 s for its head"),
            pytest.raises(LostWorkerError, match=r"^b: .* is lost, and it did not come back within 1 s .* are kept in"),
        ):
            jobs.run(todo, Cells(folder), Workers(2, "ray", patience=1))
    with pytest.raises(InputError, match=rf"no Ray cluster can be used at {machines.address} .* `ray start --head`"):
        jobs.run(todo, Cells(folder), Workers(2, "ray"))
    (machines.folder / "gate").touch()
    machines.head()
    machines.wait("head")
    done = jobs.run(todo, Cells(folder), Workers(2, "ray"))
    assert {result["name"] for result in done.values()} == {"a", "b"}
    assert [name for name, _ in begun(machines.folder / "log")] == ["a", "b", "b"]


@pytest.mark.slow
def test_a_head_that_comes_back_goes_on_with_the_sweep(machines: Machines, todo: list[jobs.Job]) -> None:
    seen = list[jobs.Progress]()

    def come_back() -> None:
        (machines.folder / "gate").touch()
        machines.head()

    with ThreadPoolExecutor(1) as beside:
        beside.submit(lose_head, machines, come_back)
        with pytest.warns(LostClusterWarning, match="is lost; waiting up to 200 s"):
            done = jobs.run(todo, Cells(machines.folder / "cells"), Workers(2, "ray", patience=200), seen.append)
    assert {result["name"] for result in done.values()} == {"a", "b"}
    assert [one.done for one in seen] == [1, 2]
    assert [name for name, _ in begun(machines.folder / "log")] == ["a", "b", "b"]
