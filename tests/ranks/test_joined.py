"""What a process does when its group is lost."""

import os
import signal

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
