import numpy as np
import pytest
import torch
from torch import nn

from compress.data.sources import from_npz
from compress.train.distill import Teacher


def test_logits_against_hinton_in_numpy():
    torch.manual_seed(0)
    logits, taught, labels = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = Teacher(nn.Identity(), 0.3, temperature=2.5).loss("classify")(logits, (labels, taught))

    def softmax(values, temperature):
        scaled = np.exp(values.numpy().astype(np.float64) / temperature)
        return scaled / scaled.sum(1, keepdims=True)

    p, q = softmax(taught, 2.5), softmax(logits, 2.5)
    divergence = (p * np.log(p / q)).sum(1).mean()
    own = -np.log(softmax(logits, 1.0)[np.arange(5), labels]).mean()
    assert float(found) == pytest.approx(0.7 * own + 0.3 * 2.5**2 * divergence, rel=1e-5)


def test_images_against_the_teachers_image():
    output, taught, image = (torch.rand(2, 1, 3, 3) for _ in range(3))
    found = Teacher(nn.Identity(), 0.25).loss("reconstruct")(output, (image, taught))
    expected = 0.75 * (output - image).square().mean() + 0.25 * (output - taught).square().mean()
    torch.testing.assert_close(found, expected)


def test_batches_carry_what_the_teacher_says_in_evaluation_mode(npz):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Dropout(0.5)).train()
    batches = from_npz(npz).batches("train", 40, "classify")
    taught = Teacher(teacher, 1.0).batches(batches)
    assert len(taught) == len(batches) == 3
    pairs = list(zip(batches(torch.Generator().manual_seed(3)), taught(torch.Generator().manual_seed(3)), strict=True))
    for (inputs, labels), (same, (truth, said)) in pairs:
        assert torch.equal(inputs, same.args[0])
        assert torch.equal(labels, truth)
        assert torch.equal(said, teacher[1](inputs.flatten(1)))
        assert not said.requires_grad
    assert teacher.training


def test_tokens_against_the_mean_divergence_of_all_places():
    torch.manual_seed(0)
    logits, taught, tokens = torch.randn(2, 3, 5), torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    found = Teacher(nn.Identity(), 1.0, temperature=2.0).loss("language_model")(logits, (tokens, taught))
    p, q = (values / 2 for values in (taught, logits))
    divergence = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(found, 4 * divergence)


def test_several_labels_against_the_divergence_of_their_sigmoids():
    torch.manual_seed(0)
    logits, taught, labels = torch.randn(4, 3), torch.randn(4, 3), torch.randint(2, (4, 3))
    found = Teacher(nn.Identity(), 1.0).loss("multilabel")(logits, (labels, taught))
    p, q = taught.double().sigmoid(), logits.double().sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(found) == pytest.approx(float(divergence), rel=1e-5)


def test_a_single_logit_is_not_taken_for_a_sure_class():
    said, taught, labels = torch.randn(6, 1), torch.randn(6, 1), torch.randint(2, (6,))
    found = Teacher(nn.Identity(), 1.0).loss("classify")(said, (labels, taught))
    assert found > 1e-3  # the softmax of one logit is always 1


@pytest.mark.parametrize("word", ["regress", "forecast"])
def test_values_against_the_teachers_values(word):
    said, taught, target = torch.randn(6, 1), torch.randn(6, 1), torch.randn(6)
    found = Teacher(nn.Identity(), 0.5).loss(word)(said, (target, taught))
    torch.testing.assert_close(found, 0.5 * ((said[:, 0] - target) ** 2).mean() + 0.5 * ((said - taught) ** 2).mean())
