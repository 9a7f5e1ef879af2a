"""What a process does when its group is lost."""

import os
import signal
import subprocess
import sys

import pytest
import torch.distributed as dist

from compress.errors import LostProcessError
from compress.run.interruption import Stop
from compress.train import ranks


def test_who_is_left_says_why_before_torchrun_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in {"init_process_group": None, "get_rank": 0, "get_world_size": 2}.items():
        monkeypatch.setattr(dist, name, lambda *_, value=value: value)
    # torchrun's signal may come while the group is being left, or any time later.
    monkeypatch.setattr(dist, "destroy_process_group", lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(LostProcessError, match="another process"), Stop().listening(), ranks.joined():
            raise RuntimeError("Connection closed by peer [127.0.0.1]:1234")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


GROUP = """
import os
from pathlib import Path
import torch
import torch.distributed as dist
from compress.train.ranks import joined

def threads():
    return sum("gloo" in (task / "comm").read_text() for task in Path("/proc/self/task").iterdir())

made, os.environ["WORLD_SIZE"] = dist.init_process_group, "2"
dist.init_process_group = lambda backend: made(backend, store=dist.HashStore(), rank=0, world_size=1)
with joined() as ranks:
    import torch.distributed.nn.functional  # as an optimizer does
    ranks.require_same(torch.nn.Linear(2, 2))
    dist.barrier()
    within = threads()
print(within > 0, threads())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_no_thread_of_the_group_outlives_it() -> None:
    """One that does can abort the interpreter's end. A fresh process: torch may be imported before or in the group."""
    done = subprocess.run([sys.executable, "-c", GROUP], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1:] == ["True 0"], done.stderr
