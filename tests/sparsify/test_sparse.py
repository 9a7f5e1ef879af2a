import copy
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import compress
from compress.errors import InputError, ProofError, UnsupportedModelError
from compress.sparsify import sparse as module
from compress.sparsify import timing
from compress.sparsify.layer import SparseLinear
from compress.sparsify.timing import Pair, in_turns, swap


def zeroed(model: nn.Module, share: float = 0.9) -> nn.Module:
    """The same network, with zeros in weights of two dimensions and more."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter[torch.rand(parameter.shape, generator=chance) < share] = 0.0
    return model


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 20))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer that may become sparse does, without waiting for its times."""
    monkeypatch.setattr(Pair, "gains", lambda pair, margin: True)
    monkeypatch.setattr(timing, "_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SECONDS", 0.2)


# --- what becomes sparse ---


@pytest.mark.parametrize("batch", [1, 32])
def test_layers_that_gain_become_sparse_and_compute_the_same(batch: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(zeroed(nn.Linear(1024, 1024), 0.99), nn.ReLU(), nn.Linear(1024, 16))
    before = copy.deepcopy(model.state_dict())
    small = compress.sparse(model, torch.randn(3, 1024), batch)
    assert isinstance(small[0], SparseLinear)
    assert type(small[2]) is nn.Linear
    report = small.sparse_report
    assert report.converted == ("0",)
    assert report.batch_size == batch
    assert report.sparse_ms < report.dense_ms
    assert report.layers[0].dense_ms > report.layers[0].sparse_ms
    assert [layer.form for layer in report.layers] == ["csr", "dense"]
    assert report.layers[0].zeros == pytest.approx(0.99, abs=0.005)
    for rows in (1, 2, 7, 33):
        x = torch.randn(rows, 1024)
        assert torch.allclose(small(x), model(x), atol=1e-5)
    assert type(model[0]) is nn.Linear
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


def test_layers_that_lose_stay_dense() -> None:
    model = zeroed(nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)), 0.6)
    small = compress.sparse(model, torch.randn(2, 8))
    assert not small.sparse_report.converted
    assert small.sparse_report.sparse_ms == small.sparse_report.dense_ms
    assert {layer.why for layer in small.sparse_report.layers} == {"sparse is not faster"}
    assert torch.equal(small(torch.ones(1, 8)), model(torch.ones(1, 8)))


@pytest.mark.parametrize(
    ("dense", "sparse", "gains"),
    [
        ([2.0] * 8, [1.0] * 8, True),
        ([1.05] * 8, [1.0] * 8, False),
        ([1.0] * 8, [2.0] * 8, False),
        ([2.0] * 5 + [0.5] * 3, [1.0] * 8, False),
        ([2.0] * 7 + [0.5], [1.0] * 8, True),
    ],
)
def test_a_gain_is_a_tenth_and_lasts(dense: list[float], sparse: list[float], gains: bool) -> None:
    assert Pair(tuple(dense), tuple(sparse)).gains(1.1) is gains


def test_a_network_that_is_not_faster_stays_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pair, "gains", lambda pair, margin: margin == timing.LAYER_MARGIN)
    report = compress.sparse(zeroed(network()), torch.randn(2, 30)).sparse_report
    assert not report.converted
    assert {layer.why for layer in report.layers} == {"the network gains too little"}


class Mixed(nn.Module):
    """Layers that remain dense, each for another reason."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 3)
        self.few = nn.Linear(4, 12)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.hooked = nn.Linear(12, 12)
        self.hooked.register_forward_hook(lambda module, args, output: output)
        self.unused = nn.Linear(12, 12)
        self.last = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.few(self.conv(x).transpose(1, 2))
        return self.last(self.hooked(self.attention(y, y, y)[0]))


@pytest.mark.usefixtures("always")
def test_the_reasons_of_layers_that_stay_dense() -> None:
    torch.manual_seed(0)
    model = zeroed(Mixed(), 0.6)
    nn.init.normal_(model.few.weight)
    report = compress.sparse(model, torch.randn(2, 1, 9)).sparse_report
    assert {layer.name: layer.why for layer in report.layers} == {
        "conv": "convolution",
        "few": "less than 50% zeros",
        "attention.out_proj": "its class is NonDynamicallyQuantizableLinear",
        "hooked": "it has hooks",
        "unused": "it is not called",
        "last": "",
    }
    text = str(report)
    assert "with 1 sparse layer " in text
    assert all(layer.name in text for layer in report.layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.usefixtures("always")
def test_types_without_kernels_stay_dense(dtype: torch.dtype) -> None:
    model = zeroed(network()).to(dtype)
    small = compress.sparse(model, torch.randn(4, 30, dtype=dtype))
    assert {layer.why for layer in small.sparse_report.layers} == {f"torch has no CSR kernels for {str(dtype)[6:]}"}


# --- networks of many kinds ---


class Tied(nn.Module):
    """An embedding whose weight also is the last layer's, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.twice = nn.Linear(16, 16)
        self.last = nn.Linear(16, 50, bias=False)
        self.last.weight = self.embed.weight
        self.also = self.twice

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.also(torch.tanh(self.twice(self.embed(ids)))))


@pytest.mark.usefixtures("always")
def test_tied_weights_and_shared_layers() -> None:
    model, ids = zeroed(Tied()), torch.arange(12).view(3, 4)
    small = compress.sparse(model, ids)
    assert isinstance(small.last, SparseLinear)
    assert small.also is small.twice
    assert torch.allclose(small(ids), model(ids), atol=1e-6)
    assert small.state_dict().keys() == model.state_dict().keys()
    fresh = Tied()
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh(ids), model(ids))


@pytest.mark.usefixtures("always")
def test_masks_and_parametrizations_are_folded() -> None:
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.8)
    parametrizations.spectral_norm(zeroed(model[2]))
    model.eval()
    small, x = compress.sparse(model, torch.randn(4, 30)), torch.randn(5, 30)
    assert small.sparse_report.converted == ("0", "2")
    assert torch.allclose(small(x), model(x), atol=1e-5)
    assert prune.is_pruned(model)
    assert not prune.is_pruned(small)


@pytest.mark.usefixtures("always")
def test_a_network_that_is_a_layer_itself() -> None:
    model = zeroed(nn.Linear(20, 20))
    assert isinstance(compress.sparse(model, torch.randn(2, 20)), SparseLinear)


@pytest.mark.usefixtures("always")
def test_again_at_another_batch_size() -> None:
    model = zeroed(network())
    once = compress.sparse(model, torch.randn(2, 30))
    again = compress.sparse(once, torch.randn(2, 30), 8)
    assert again.sparse_report.converted == ("0", "2")
    assert again.sparse_report.batch_size == 8
    assert torch.equal(again(torch.ones(2, 30)), once(torch.ones(2, 30)))


def test_a_network_without_layers() -> None:
    assert compress.sparse(nn.ReLU(), torch.randn(2, 3)).sparse_report.layers == ()


@pytest.mark.usefixtures("always")
def test_modes_and_other_forms_of_input() -> None:
    model = zeroed(nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 6)))
    model.train()
    small = compress.sparse(model, torch.randn(2, 5, 3, 6))
    assert small.training
    assert small[0].training
    assert small.eval()(torch.randn(0, 6)).shape == (0, 6)
    assert small(torch.randn(6)).shape == (6,)


@pytest.mark.usefixtures("always")
def test_a_sparse_layer_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SparseLinear, "matrix", property(lambda self: 1.01 * torch.zeros(40, 30)))
    with pytest.raises(ProofError):
        compress.sparse(zeroed(nn.Linear(30, 40)), torch.randn(2, 30))


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"model": nn.ReLU}, InputError, "expected a network"),
        ({"batch_size": 0}, InputError, "batch_size: found 0"),
        ({"example": torch.randn(2, 31)}, InputError, "does not run on 1 sample of it"),
        ({"model": network().to("meta")}, InputError, "is on meta; sparse layers are for model.cpu"),
        ({"model": nn.DataParallel(network())}, UnsupportedModelError, "give the network in it"),
    ],
)
def test_what_cannot_be(how: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        compress.sparse(**({"model": network(), "example": torch.randn(2, 30)} | how))  # type: ignore[arg-type]


def test_the_network_is_left_dense_between_rounds() -> None:
    holder = nn.ModuleList([zeroed(network())])
    dense = holder[0][0]
    found = in_turns(holder, compress.Inputs((torch.randn(2, 30),)), {dense: SparseLinear(dense)}, {dense: "first"})
    assert holder[0][0] is dense
    assert found.keys() == {timing.WHOLE, "first"}
    assert len(found["first"].dense) == len(found["first"].sparse) >= 9
    assert not dense._forward_hooks
    swap(holder, {dense: nn.Identity()})
    assert isinstance(holder[0][0], nn.Identity)
    assert module._batch(compress.Inputs((torch.arange(3),)), 7).args[0].tolist() == [0, 1, 2, 0, 1, 2, 0]


# --- the layer ---


def layer(bias: bool = True) -> tuple[nn.Linear, SparseLinear]:
    torch.manual_seed(0)
    linear = nn.Linear(12, 7, bias=bias)
    zeroed(linear)
    return linear, SparseLinear(linear)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(12,), (1, 12), (5, 12), (2, 3, 12), (0, 12)])
def test_it_computes_what_the_linear_layer_does(bias: bool, shape: tuple[int, ...]) -> None:
    linear, sparse = layer(bias)
    x = torch.randn(shape)
    found = sparse(x)
    assert torch.allclose(found, linear(x), atol=1e-6)
    assert found.is_contiguous()
    assert torch.allclose(sparse.double()(x.double()), linear.double()(x.double()))


def test_copies_files_and_state() -> None:
    linear, sparse = layer()
    x, stream = torch.randn(3, 12), io.BytesIO()
    torch.save(sparse, stream)
    stream.seek(0)
    for other in (copy.deepcopy(sparse), torch.load(stream, weights_only=False), SparseLinear(sparse.dense())):
        assert torch.equal(other(x), sparse(x))
    assert sparse.state_dict().keys() == linear.state_dict().keys()
    assert torch.equal(sparse.weight, linear.weight)
    other, _ = nn.Linear(12, 7), None
    sparse.load_state_dict(other.state_dict())
    assert torch.allclose(sparse(x), other(x), atol=1e-6)
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        sparse.load_state_dict(nn.Linear(11, 7).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        sparse.load_state_dict({"bias": torch.zeros(7)})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        sparse.load_state_dict({**linear.state_dict(), "other": torch.zeros(7)})
    assert "nonzeros=" in repr(sparse)


def test_gradients_reach_the_inputs_and_the_bias_alone() -> None:
    linear, sparse = layer()
    one, other = torch.randn(3, 12).requires_grad_(), torch.randn(3, 12)
    other.copy_(one.detach()).requires_grad_()
    linear(one).square().sum().backward()
    sparse(other).square().sum().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-5)
    assert torch.allclose(linear.bias.grad, sparse.bias.grad, atol=1e-5)
    assert [name for name, _ in sparse.named_parameters()] == ["bias"]


def test_a_cast_to_what_has_no_kernels_is_an_error() -> None:
    _, sparse = layer()
    with pytest.raises(InputError, match=r"no CSR kernels for torch\.bfloat16"):
        sparse.bfloat16()(torch.randn(2, 12, dtype=torch.bfloat16))


@pytest.mark.usefixtures("always")
def test_a_sparse_network_becomes_a_file(tmp_path: Path) -> None:
    model = zeroed(network())
    compress.export.sparse(compress.sparse(model, torch.randn(2, 30)), tmp_path / "a.safetensors")
    compress.export.sparse(model, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.equal(compress.load(tmp_path / "a.safetensors", model=network)[0].weight, model[0].weight)
