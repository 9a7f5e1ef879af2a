"""The number of threads of a worker."""


def one_thread() -> None:
    """One thread for torch: two processes with two threads each take several times as long on two cores."""
    import torch

    torch.set_num_threads(1)
