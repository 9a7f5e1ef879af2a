"""An ONNX file in a network's place gives the network's outputs and metrics, for any task and any call."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compress.export
from compress.errors import InputError
from compress.export.onnx_network import OnnxNetwork
from compress.quantize.agreement import agreement
from compress.tasks import OwnTask, Task, cross_entropy, squared_error
from compress.train import metrics


class Tagger(nn.Module):
    """As networks of transformers: keyword arguments, labels among them, and an object of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(11, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Any:
        hidden = (self.words(ids) * mask.unsqueeze(-1)).mean(1)
        logits = self.head(hidden)
        return SimpleNamespace(logits=logits, hidden=hidden)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model, path = Tagger().eval(), tmp_path_factory.mktemp("tagger") / "tagger.onnx"
    compress.export.onnx(model, path, {"ids": torch.zeros(2, 4, dtype=torch.int64), "mask": torch.ones(2, 4)})
    return model, path


def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    sizes = (5, 5, 2)
    return [
        {
            "labels": torch.randint(3, (size,), generator=generator),
            "mask": torch.rand(size, 4, generator=generator),
            "ids": torch.randint(11, (size, 4), generator=generator),
        }
        for size in sizes
    ]


OWN = OwnTask(
    lambda output, target: cross_entropy(output.logits, target), {"size": lambda output, _: output.hidden.abs().mean()}
)


@pytest.mark.parametrize("task", ["classify", OWN], ids=["classify", "own"])
def test_metrics_are_those_of_the_network(tagger: tuple[nn.Module, Path], task: Task) -> None:
    model, path = tagger
    wanted = metrics.evaluate(model, batches, task)
    assert metrics.evaluate(OnnxNetwork(path), batches, task) == pytest.approx(wanted, rel=1e-6)


def test_a_tensor_alone_is_returned_alone(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))).eval()
    compress.export.onnx(model, tmp_path / "x.onnx", torch.zeros(2, 1, 2, 2))
    data = [(image, image) for image in torch.rand(3, 5, 1, 2, 2)]
    found = metrics.evaluate(OnnxNetwork(tmp_path / "x.onnx"), lambda: data, "reconstruct")
    wanted = sum(float(squared_error(model(image), image).detach()) for image, _ in data) / 3
    assert found["loss"] == pytest.approx(wanted, rel=1e-6)


def test_outputs_are_in_the_containers_of_the_network(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"a": (x + 1, None), "b": [x + 2]}

    compress.export.onnx(Two(), tmp_path / "x.onnx", torch.zeros(2, 1))
    found = OnnxNetwork(tmp_path / "x.onnx", like=Two()(torch.zeros(2, 1)))(torch.ones(3, 1))
    assert found["a"][0].tolist() == [[2.0]] * 3
    assert found["a"][1] is None
    assert found["b"][0].tolist() == [[3.0]] * 3


def test_a_call_of_other_inputs_is_an_error(tagger: tuple[nn.Module, Path]) -> None:
    network = OnnxNetwork(tagger[1])
    with pytest.raises(InputError, match=r"takes the inputs 'ids', 'mask', and is given 1 tensors"):
        network(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="onnxruntime does not run it on these inputs"):
        network(ids=torch.zeros(2, 4), mask=torch.ones(2, 4))


def test_agreement_is_of_classes_and_of_values(tagger: tuple[nn.Module, Path]) -> None:
    model, path = tagger
    other = Tagger().eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.head.bias[0] += 100.0
    found = agreement(OnnxNetwork(path), other, batches(), "classify")
    classes = torch.cat([model(**batch).logits.argmax(1) for batch in batches()])
    assert found["equal"] == pytest.approx(float((classes == 0).double().mean()))
    assert found["largest"] == pytest.approx(100, rel=1e-5)
    assert found["mean"] == pytest.approx(100 / 3, rel=1e-5)
    assert "equal" not in agreement(OnnxNetwork(path), model, batches(), "reconstruct")
