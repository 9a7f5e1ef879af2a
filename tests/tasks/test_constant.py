"""The constant output of each task against numpy: means, and the shares of classes, labels and tokens."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.tasks import NamedTask, OwnTask, Task
from compress.tasks.constant import ConstantOutput


def constant(task: Task, output: Any, target: Any, size: int = 7) -> ConstantOutput:
    found = ConstantOutput(task)
    rows = len(target["input"] if isinstance(target, dict) else target)
    for start in range(0, rows, size):
        part = slice(start, start + size)
        one = {key: value[part] for key, value in target.items()} if isinstance(target, dict) else target[part]
        found.see(output[part], one, len(output[part]))
    return found


@pytest.mark.parametrize("word", ["reconstruct", "regress", "forecast"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 4, 4)])
def test_values_have_their_mean(word: Any, shape: tuple[int, ...]) -> None:
    target = torch.randn(20, *shape)
    found = constant(word, torch.zeros(20, *shape), target).like(torch.zeros(5, *shape))
    assert found.shape == (5, *shape)
    np.testing.assert_allclose(found[3].numpy(), target.double().numpy().mean(0), rtol=1e-6)


@pytest.mark.parametrize("labels", ["numbers", "one-hot", "column"])
def test_classes_have_their_shares(labels: str) -> None:
    truth = torch.tensor([0, 2, 2, 2, 1, 2, 0, 2])
    forms = {"numbers": truth, "one-hot": torch.nn.functional.one_hot(truth, 3), "column": truth[:, None]}
    found = constant("classify", torch.randn(8, 3), forms[labels], 3).like(torch.randn(2, 3))
    np.testing.assert_allclose(found.softmax(1).numpy(), [[3 / 11, 2 / 11, 6 / 11]] * 2, rtol=1e-6)


def test_a_single_logit_is_that_of_two_classes() -> None:
    found = constant("classify", torch.randn(8, 1), torch.tensor([0, 1, 1, 1, 1, 1, 1, 0])).like(torch.randn(4, 1))
    np.testing.assert_allclose(found.softmax(1).numpy(), [[0.3, 0.7]] * 4, rtol=1e-6)


def test_ignored_labels_and_places_of_an_image() -> None:
    truth = torch.tensor([[[1, 1], [0, 255]], [[1, 1], [255, 1]]])
    found = constant(NamedTask("classify", ignore_index=255), torch.randn(2, 2, 2, 2), truth).like(
        torch.randn(3, 2, 4, 4)
    )
    assert found.shape == (3, 2, 4, 4), "one share for all places, whose number may vary"
    np.testing.assert_allclose(found.softmax(1)[0, :, 1, 2].numpy(), [2 / 8, 6 / 8], rtol=1e-6)


def test_tokens_have_their_shares_whatever_the_length() -> None:
    found = constant("language_model", torch.randn(2, 3, 4), torch.tensor([[0, 1, 1], [1, 3, -100]]))
    output = found.like(torch.randn(1, 9, 4))
    np.testing.assert_allclose(output.softmax(-1)[0, 8].numpy(), np.array([2, 4, 1, 2]) / 9, rtol=1e-6)


def test_labels_have_their_shares() -> None:
    target = torch.tensor([[1.0, 0, -1], [1, 1, -1], [1, 0, 1], [0, 0, 1]])
    found = constant(NamedTask("multilabel", ignore_index=-1), torch.randn(4, 3), target, 2).like(torch.randn(2, 3))
    np.testing.assert_allclose(found.sigmoid()[1].numpy(), [3.5 / 5, 1.5 / 5, 2.5 / 3], rtol=1e-6)


def test_the_mean_input_is_that_of_normal_samples() -> None:
    inputs, flags = torch.randn(10, 2), torch.arange(10) % 5 == 0
    found = constant("anomaly", torch.zeros(10, 2), {"input": inputs, "anomaly": flags}).like(torch.zeros(1, 2))
    np.testing.assert_allclose(found[0].numpy(), inputs[~flags].double().mean(0), rtol=1e-6)


def nothing(output: Any, target: Any) -> Tensor:
    return torch.zeros(())


def test_a_loss_of_the_users_own_gets_the_mean_output() -> None:
    output = torch.randn(20, 3)
    found = constant(OwnTask(nothing), output, torch.zeros(20)).like(torch.zeros(4, 3))
    np.testing.assert_allclose(found.numpy(), np.tile(output.double().numpy().mean(0), (4, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([torch.zeros(4, 3), torch.zeros(4, 5)], "different shapes"),
        ([torch.zeros(3, 4)], "one entry per sample"),
        ([(torch.zeros(4, 2), torch.zeros(()))], "one entry per sample"),
        ([torch.zeros(4, dtype=torch.int64)], "one entry per sample"),
    ],
)
def test_outputs_without_a_mean_have_no_constant_output(outputs: list[Any], why: str) -> None:
    found = ConstantOutput(OwnTask(nothing))
    for output in outputs:
        found.see(output, None, 4)
    assert found.like(outputs[0]) is None
    assert why in str(found.missing)


def test_series_of_different_lengths_have_no_mean() -> None:
    found = ConstantOutput("forecast")
    for length in (3, 4):
        found.see(torch.zeros(2, length), torch.zeros(2, length), 2)
    assert found.like(torch.zeros(2, 3)) is None
