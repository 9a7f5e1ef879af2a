"""Where chance stands: the generators that the process shares, such as torch's own, which dropout draws from.

Whatever has a generator of its own keeps that itself.
"""

import random
from typing import Any

import numpy as np
import torch


def state_dict() -> dict[str, Any]:
    """Of torch (all devices), numpy and Python; tensors, lists and numbers alone, so that any file can hold it."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def load_state_dict(saved: dict[str, Any]) -> None:
    """From here on chance repeats what followed `state_dict()`."""
    torch.set_rng_state(saved["torch"])
    if saved["cuda"]:
        torch.cuda.set_rng_state_all(saved["cuda"])
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, inner, gauss = saved["python"]
    random.setstate((version, tuple(inner), gauss))
