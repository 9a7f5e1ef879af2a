"""Networks of benchmarks/beyond.py, called as their users call them: half of every width goes, the outputs remain."""

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# One of each way to be called, and of each kind of layer.
QUICK = ["Seq2Seq", "Bahdanau", "DLRM", "TCN", "GAT", "PackedClassifier", "TabNet", "StyleGAN", "RealNVP", "NanoGPT"]
LIBRARIES = [
    *("BertForSequenceClassification", "LlamaForCausalLM", "T5ForConditionalGeneration", "MambaForCausalLM"),
    "TimeSeriesTransformerForPrediction",
    *("CLIPModel", "SegformerForSemanticSegmentation", "UNet2DConditionModel", "AutoencoderTiny", "lcnet_050"),
]


pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, and that a graph trains as in evaluation


@pytest.fixture(scope="module")
def beyond() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("beyond")
    finally:
        sys.path.remove(str(BENCHMARKS))


def require_good(beyond: ModuleType, name: str) -> None:
    found = beyond.ours(name)
    assert found["pass"], found
    assert found["trains"] is True
    assert found["depends"] > 1e-4, "the network as it is built computes nearly a constant"
    if beyond.NETWORKS[name].other:
        assert isinstance(found["length"], str) or found["length"] <= beyond.TOLERANCE


@pytest.mark.extended
@pytest.mark.parametrize("name", QUICK)
def test_half_of_every_width_of_common_networks(beyond, name):
    require_good(beyond, name)


@pytest.mark.extended
@pytest.mark.parametrize("name", LIBRARIES)
def test_half_of_every_width_of_libraries_networks(beyond, name):
    pytest.importorskip(beyond.NETWORKS[name].library)
    require_good(beyond, name)


def test_outputs_differ_where_a_tensor_or_the_structure_does(beyond):
    import torch

    one = {"logits": torch.tensor([1.0, 2.0]), "cache": [(torch.ones(2), 3)]}
    same = {"logits": torch.tensor([1.0, 2.0]), "cache": [(torch.ones(2), 3)]}
    other = {"logits": torch.tensor([1.0, 2.5]), "cache": [(torch.ones(2), 3)]}
    assert beyond.difference(one, same) == 0
    assert beyond.difference(one, other) == pytest.approx(0.25)
    assert math.isinf(beyond.difference(one, {"logits": one["logits"], "cache": [[torch.ones(2), 3]]}))
    assert math.isinf(beyond.difference(one, one | {"cache": [(torch.ones(3), 3)]}))
    assert math.isinf(beyond.difference({"ids": torch.tensor([1])}, {"ids": torch.tensor([2])}))
