"""`SparseLinear`: a Linear layer that computes with its nonzero weights alone."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import InputError

DTYPES = (torch.float32, torch.float64)
"""What torch has CSR kernels for."""

with warnings.catch_warnings(action="ignore"):  # torch says once in a process that CSR is in beta state
    torch.zeros(1, 1).to_sparse_csr()


class SparseLinear(nn.Module):
    """A Linear layer whose weight is a CSR matrix, for inference on the CPU; made by `compress.sparse`.

    Its weights do not train; gradients reach its inputs and its bias. It has the state_dict of the Linear layer, so
    each can load the other's.

    crow [out + 1], col [nonzeros], values [nonzeros]: the matrix; 32-bit indices, with which torch's kernels compute.
    """

    crow: Tensor
    col: Tensor
    values: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        for name in ("crow", "col", "values"):
            self.register_buffer(name, None, persistent=False)
        self._take(linear.weight.detach())
        self.register_parameter("bias", None if linear.bias is None else nn.Parameter(linear.bias.detach().clone()))
        self.train(linear.training)

    @property
    def matrix(self) -> Tensor:
        """The weight as a CSR tensor [out, in]; made at each call, in 2 microseconds, since torch cannot copy one."""
        own: Any = self._buffers  # attributes of a module take microseconds
        shape = (self.out_features, self.in_features)
        return torch.sparse_csr_tensor(own["crow"], own["col"], own["values"], shape, check_invariants=False)

    @property
    def weight(self) -> Tensor:
        """The weight [out, in], dense, as a copy."""
        return self.matrix.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out].

        Raises:
            InputError: the layer was cast to another type than float32 and float64.
        """
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        try:
            # Several times as fast as `linear` with a CSR weight, which takes one sample after the other.
            output = torch.mm(self.matrix, rows.t()).t().contiguous()
        except NotImplementedError as error:
            raise InputError(
                f"torch has no CSR kernels for {self.values.dtype}: cast the dense network, and call compress.sparse"
            ) from error
        bias = self._parameters["bias"]
        if bias is not None:
            output = output.add_(bias)
        return output if x.dim() == 2 else output.view(*x.shape[:-1], self.out_features)

    def dense(self) -> nn.Linear:
        """The Linear layer that it was made of."""
        linear = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, dtype=self.values.dtype)
        linear.load_state_dict(self.state_dict())
        return linear.train(self.training)

    def extra_repr(self) -> str:
        """The sizes, as print(layer) shows them."""
        return f"{self.in_features}, {self.out_features}, nonzeros={self.values.numel()}, bias={self.bias is not None}"

    def _take(self, weight: Tensor) -> None:
        matrix = weight.to_sparse_csr()
        self.crow, self.col, self.values = matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Tensor],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        name, shape = f"{prefix}weight", (self.out_features, self.in_features)
        weight, others = state_dict.get(name), {key: value for key, value in state_dict.items() if key != name}
        if weight is None:
            missing_keys.append(name)
        elif weight.shape != shape:
            error_msgs.append(f"size mismatch for {name}: found {tuple(weight.shape)}, expected {shape}.")
        else:
            self._take(weight.detach().to(self.values))
        super()._load_from_state_dict(others, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
