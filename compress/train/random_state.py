"""The state of the process's global random generators, such as torch's own, which dropout draws from.

Objects with their own generator save it themselves.
"""

import random
from typing import Any

import numpy as np
import torch


def state_dict() -> dict[str, Any]:
    """The state of torch (all devices), numpy and Python, as tensors, lists and numbers, which any file can hold."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def load_state_dict(saved: dict[str, Any]) -> None:
    """Restore the state, so that random numbers repeat those that followed `state_dict()`."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, inner, gauss = saved["python"]
    random.setstate((version, tuple(inner), gauss))
