"""Labels and values as people have them: one reading, or an error in their words."""

import pytest
import torch
import torch.nn.functional as F

from compress.errors import DataError, InputError
from compress.tasks import NamedTask, counted, loss, measured_loss
from compress.tasks.targets import class_labels, class_logits

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 3, 0])
ONE_HOT = F.one_hot(LABELS, 4)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.int(),
        LABELS.to(torch.uint8),
        LABELS.float(),
        LABELS.double(),
        LABELS[:, None],
        LABELS[:, None].float(),
        ONE_HOT,
        ONE_HOT.float(),
        ONE_HOT.double(),
        ONE_HOT.bool(),
    ],
    ids=["int32", "uint8", "float", "double", "column", "float column", "one-hot", "float1h", "double1h", "bool1h"],
)
def test_class_labels_in_any_form_are_the_same(labels) -> None:
    assert torch.equal(class_labels(LOGITS, labels), LABELS)
    assert loss("classify")(LOGITS, labels) == loss("classify")(LOGITS, LABELS) == F.cross_entropy(LOGITS, LABELS)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("labels", [torch.tensor([0, 1, 1, 0, 1, 0]), torch.tensor([0, 1, 1, 0, 1, 0]).bool()])
def test_a_single_logit_is_that_of_class_1(shape, labels) -> None:
    logit = LOGITS[:, 0].reshape(shape)
    expected = F.binary_cross_entropy_with_logits(logit.flatten(), labels.float())
    for given in (labels, labels[:, None], labels.float()):
        torch.testing.assert_close(loss("classify")(logit, given), expected)
    assert torch.equal(class_logits(logit).argmax(1), (logit.flatten() > 0).long())


def test_labels_of_places() -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    expected = F.cross_entropy(logits, labels)
    assert loss("classify")(logits, labels) == expected
    assert loss("classify")(logits, labels[:, None].float()) == expected
    assert loss("classify")(logits, F.one_hot(labels, 3).movedim(-1, 1)) == expected
    labels[0] = 255
    ignoring = NamedTask("classify", ignore_index=255)
    torch.testing.assert_close(loss(ignoring)(logits, labels), F.cross_entropy(logits[1:], labels[1:]))
    assert counted(ignoring, logits, labels, 2) == 20


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0.5, 1, 2, 3, 3, 0]), r"hold 0.5, which is not a class number; use task: regress"),
        (torch.tensor([torch.nan, 1, 2, 3, 3, 0]), "hold nan"),
        (LABELS + 1, r"reach from 1 to 4.*they count from 1: subtract 1"),
        (LABELS - 1, r"reach from -1 to 2.*ignore_index: -1"),
        (torch.zeros(6, 2), r"\[6, 4\] and the labels \[6, 2\].*\[6\], \[N, 1\] or one-hot \[6, 4\].*multilabel"),
        (torch.zeros(5).long(), r"\[6, 4\] and the labels \[5\]"),
        (ONE_HOT + ONE_HOT.roll(1, 1), "not every row has a single 1.*multilabel"),
        (ONE_HOT * 0.9, "not every row has a single 1"),
        (None, "no target"),
        ("cat", "targets of str"),
    ],
)
def test_labels_with_no_reading_are_refused_in_the_users_words(labels, words) -> None:
    with pytest.raises(DataError, match=words):
        loss("classify")(LOGITS, labels)


def test_label_smoothing_is_of_the_training_loss_alone() -> None:
    task = NamedTask("classify", label_smoothing=0.1)
    assert loss(task)(LOGITS, LABELS) == F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    assert measured_loss(task)(LOGITS, LABELS) == F.cross_entropy(LOGITS, LABELS)


@pytest.mark.parametrize("word", ["classify", "language_model", "multilabel"])
def test_a_batch_without_a_label_that_counts_has_no_loss(word) -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    shape = {"classify": (2, 4), "language_model": (2, 3), "multilabel": (2, 3, 4)}[word]
    task = NamedTask(word, ignore_index=-1)
    found = loss(task)(logits, torch.full(shape, -1))
    found.backward()
    assert found == 0
    assert not logits.grad.any()
    assert counted(task, logits, torch.full(shape, -1), 2) == 0


# --- values ---


@pytest.mark.parametrize(("said", "wanted"), [((5,), (5, 1)), ((5, 1), (5,)), ((5, 3), (5, 3, 1)), ((5, 3, 1), (5, 3))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_values_may_lack_their_last_dimension_and_have_any_dtype(said, wanted, dtype) -> None:
    output, target = torch.randn(said), (torch.randn(wanted) * 3).to(dtype)
    expected = ((output.reshape(-1) - target.reshape(-1).float()) ** 2).mean()
    found = loss("regress")(output, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("said", "wanted"), [((5, 1), (5, 5)), ((5,), (1,)), ((5, 2), (5,)), ((1, 5), (5,)), ((5, 2), (2, 5))]
)
def test_values_are_never_broadcast(said, wanted) -> None:
    with pytest.raises(InputError, match=rf"{list(said)} and the targets {list(wanted)}".replace("[", r"\[")):
        loss("regress")(torch.zeros(said), torch.zeros(wanted))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64, torch.bool])
def test_several_labels_of_any_dtype(dtype) -> None:
    labels = (LOGITS > 0.3).to(dtype)
    expected = F.binary_cross_entropy_with_logits(LOGITS, labels.float())
    assert loss("multilabel")(LOGITS, labels) == expected
    assert loss("multilabel")(LOGITS[:, 0], labels[:, :1]) == F.binary_cross_entropy_with_logits(
        LOGITS[:, 0], labels[:, 0].float()
    )


def test_unknown_labels_are_not_counted() -> None:
    labels = (LOGITS > 0.3).long()
    labels[0, 1] = labels[3, 2] = -1
    task = NamedTask("multilabel", ignore_index=-1)
    known = labels >= 0
    expected = F.binary_cross_entropy_with_logits(LOGITS[known], labels[known].float())
    torch.testing.assert_close(loss(task)(LOGITS, labels), expected)
    with pytest.raises(DataError, match=r"reach from -1 to 1.*ignore_index: -1"):
        loss("multilabel")(LOGITS, labels)
    with pytest.raises(DataError, match=r"\[6, 4\] and the targets \[6\].*task: classify"):
        loss("multilabel")(LOGITS, LABELS)


def test_tokens_that_follow() -> None:
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    tokens[0, 3:] = -100
    counts = [(row, place) for row in range(2) for place in range(5) if tokens[row, place] != -100]
    expected = -sum(logits[row, place].log_softmax(0)[tokens[row, place]] for row, place in counts) / len(counts)
    torch.testing.assert_close(loss("language_model")(logits, tokens), expected)
    assert counted("language_model", logits, tokens, 2) == 8
    with pytest.raises(DataError, match=r"\[2, 7, 5\] and the tokens \[2, 5\].*last dimension"):
        loss("language_model")(logits.mT, tokens)
    with pytest.raises(DataError, match="needs integers"):
        loss("language_model")(logits, tokens.float())


def test_only_normal_samples_are_learnt() -> None:
    inputs, output = torch.randn(4, 3), torch.randn(4, 3)
    flags = torch.tensor([0, 1, 0, 1])
    target = {"input": inputs, "anomaly": flags}
    torch.testing.assert_close(loss("anomaly")(output, target), ((output - inputs)[[0, 2]] ** 2).mean())
    assert loss("anomaly")(output, inputs) == F.mse_loss(output, inputs)
    assert counted("anomaly", output, target, 4) == 2
    assert loss("anomaly")(output, {"input": inputs, "anomaly": torch.ones(4)}) == 0
    with pytest.raises(DataError, match='"anomaly"'):
        loss("anomaly")(output, {"input": inputs, "anomaly": torch.ones(3)})
