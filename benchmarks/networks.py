"""Networks that people have, beyond torchvision's: how each is built, small where its library has sizes to choose,
and what its users call it with.

`NETWORKS` has them by name. A library is imported when one of its networks is built; timm and diffusers are not
dependencies of this project:

    pip install --no-deps --target /some/folder timm==1.0.30 diffusers==0.42.1
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import handwritten
import torch
from lively import calibrate, enliven
from torch import Tensor, nn

from compress.inputs import inputs_of

VOCABULARY = 64
Arguments = Callable[[int, int], object]
"""What a network is called with, for a number of rows and a length (in tokens, steps or pixels a side)."""


@dataclass(frozen=True)
class Network:
    """kind: the library, or "hand-written". length: the usual one; other: another that it takes, 0 if none."""

    kind: str
    construct: Callable[[], nn.Module]
    arguments: Arguments
    length: int = 0
    other: int = 0

    def build(self) -> nn.Module:
        """The network in evaluation mode; the same weights each time."""
        torch.manual_seed(0)
        model = self.construct().eval()
        enliven(model)
        calibrate(model, inputs_of(self.example(8 if self.length < 100 else 4)).call)
        return model

    def example(self, rows: int = 2, length: int = 0, seed: int = 1) -> Any:
        torch.manual_seed(seed)
        return self.arguments(rows, length or self.length)

    def varying(self, model: nn.Module) -> dict[str, dict[int, str]]:
        """A name for each dimension of the inputs that follows from the length; equal sizes have one name."""
        usual, other = inputs_of(self.example()), inputs_of(self.example(length=self.other))
        found: dict[str, dict[int, str]] = {}
        for name, one, two in zip(usual.names(model), usual.tensors, other.tensors, strict=True):
            words = {dim: f"size_{one.shape[dim]}" for dim in range(one.ndim) if one.shape[dim] != two.shape[dim]}
            found |= {name: words} if words else {}
        return found

    @property
    def library(self) -> str:
        return "torch" if self.kind == "hand-written" else self.kind


# What networks are called with.


def tokens(rows: int, length: int) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, length))


def ids(rows: int, length: int) -> dict[str, Tensor]:
    """Tokens, the last of which are padding in all rows but the first."""
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:, length - 3 :] = 0
    return {"input_ids": tokens(rows, length), "attention_mask": mask}


def only_ids(rows: int, length: int) -> dict[str, Tensor]:
    return {"input_ids": tokens(rows, length)}


def both_ids(rows: int, length: int) -> dict[str, Tensor]:
    return ids(rows, length) | {"decoder_input_ids": tokens(rows, length // 2)}


def picture(rows: int, length: int) -> Tensor:
    return torch.randn(rows, 3, length, length)


def pixel_values(rows: int, length: int) -> dict[str, Tensor]:
    return {"pixel_values": picture(rows, length)}


def picture_and_ids(rows: int, length: int) -> dict[str, Tensor]:
    return ids(rows, length) | pixel_values(rows, 32)


def sound(rows: int, length: int) -> dict[str, Tensor]:
    return {"input_values": torch.randn(rows, length)}


def spectrum(rows: int, length: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(rows, 16, length), "decoder_input_ids": tokens(rows, 7)}


def series(rows: int, length: int) -> dict[str, Tensor]:
    past, future = 24, 6
    return {
        "past_values": torch.rand(rows, past) + 1,
        "past_time_features": torch.randn(rows, past, 2),
        "past_observed_mask": torch.ones(rows, past),
        "future_values": torch.rand(rows, future) + 1,
        "future_time_features": torch.randn(rows, future, 2),
    }


def past_values(rows: int, length: int) -> dict[str, Tensor]:
    return {"past_values": torch.randn(rows, length, 3)}


def noisy(channels: int, text: bool = False, words: bool = False) -> Arguments:
    """A noisy picture, the time step, and the conditions of a denoiser."""

    def made(rows: int, length: int) -> dict[str, Any]:
        found = {"sample": torch.randn(rows, channels, length, length), "timestep": torch.full((rows,), 7)}
        return found | ({"encoder_hidden_states": torch.randn(rows, 5, 32)} if text else {})

    return made


def labelled(rows: int, length: int) -> dict[str, Tensor]:
    return {
        "hidden_states": torch.randn(rows, 4, length, length),
        "timestep": torch.full((rows,), 7),
        "class_labels": torch.randint(10, (rows,)),
    }


# Networks of libraries.


def _timm(model: str, length: int = 224, other: int = 0, **sizes: Any) -> Network:
    def construct() -> nn.Module:
        made: nn.Module = importlib.import_module("timm").create_model(model, **sizes)
        return made

    return Network("timm", construct, picture, length, other)


def _timm_all(*models: str, length: int = 224, other: int = 0) -> dict[str, Network]:
    return {model: _timm(model, length, other) for model in models}


def _transformers(
    model: str, arguments: Arguments = ids, length: int = 12, other: int = 9, **sizes: Any
) -> dict[str, Network]:
    def construct() -> nn.Module:
        network = getattr(importlib.import_module("transformers"), model)
        made: nn.Module = network(network.config_class(**sizes))
        return made

    return {model: Network("transformers", construct, arguments, length, other)}


def _diffusers(model: str, arguments: Arguments, length: int = 16, other: int = 24, **sizes: Any) -> dict[str, Network]:
    def construct() -> nn.Module:
        made: nn.Module = getattr(importlib.import_module("diffusers"), model)(**sizes)
        return made

    return {model: Network("diffusers", construct, arguments, length, other)}


class RawHeads(nn.Module):
    """A detection network of torchvision up to what its heads compute, before boxes are made of it."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.get_submodule("backbone"), detector.get_submodule("head")

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.head(list(self.backbone(pictures).values()))
        return found


def _detector(model: str, length: int, other: int = 0) -> Network:
    def construct() -> nn.Module:
        from torchvision import models

        return RawHeads(models.get_model(model, weights=None, weights_backbone=None))

    return Network("torchvision", construct, picture, length, other)


STREAM: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
}
GROUPED = STREAM | {"num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT2: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 32}
SEQ2SEQ: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
}
VISION: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 8,
}
SPEECH: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32, 32, 32),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 3, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": VOCABULARY,
}
SERIES: dict[str, Any] = {
    "prediction_length": 6,
    "context_length": 17,
    "lags_sequence": [1, 2, 7],
    "num_time_features": 2,
} | SEQ2SEQ
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
RESNET: dict[str, Any] = {"embedding_size": 32, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1]}


def _detr() -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone: Any = ResNetConfig(**RESNET, layer_type="basic")
    backbone.out_features = ["stage4"]
    sizes = SEQ2SEQ | {"num_queries": 10, "use_timm_backbone": False, "backbone": None, "num_labels": 5}
    return DetrForObjectDetection(DetrConfig(**sizes, backbone_config=backbone))


def _rt_detr() -> nn.Module:
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone: Any = RTDetrResNetConfig(**RESNET, layer_type="basic")
    backbone.out_features = ["stage2", "stage3", "stage4"]
    sizes: dict[str, Any] = {"encoder_in_channels": [48, 64, 96], "feat_strides": [8, 16, 32], "num_labels": 5}
    sizes |= {"encoder_hidden_dim": 32, "encoder_ffn_dim": 64, "d_model": 32, "decoder_in_channels": [32, 32, 32]}
    sizes |= {"decoder_ffn_dim": 64, "decoder_layers": 2, "num_queries": 10, "num_denoising": 0}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return RTDetrForObjectDetection(RTDetrConfig(**sizes, backbone_config=backbone))


def _clip() -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = STREAM | {"eos_token_id": VOCABULARY - 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=32))


def _own(construct: Callable[[], nn.Module], arguments: Arguments, length: int = 0, other: int = 0) -> Network:
    return Network("hand-written", construct, arguments, length, other)


TIMM = {
    **_timm_all("levit_128s", "tiny_vit_5m_224", "mixer_s32_224", "deit_tiny_patch16_224", "xcit_nano_12_p16_224"),
    **_timm_all("efficientformer_l1", "fastvit_t8", "coatnet_nano_rw_224", "hiera_tiny_224", "pit_ti_224"),
    **_timm_all("convnextv2_atto", "edgenext_xx_small", "ghostnet_050", "repvgg_a0", "poolformer_s12", other=192),
    **_timm_all("mobilevit_xxs", "mobilevitv2_050", "res2net50_14w_8s", "hrnet_w18_small", "dla46_c", other=192),
    **_timm_all("ese_vovnet19b_dw", "selecsls42b", "rexnet_100", "tresnet_m", "eca_nfnet_l0", other=192),
    **_timm_all("efficientnet_b0", "mobilenetv4_conv_small", "regnety_002", "skresnet18", "resnest14d", other=192),
    **_timm_all("cspresnet50", "dpn48b", "mobileone_s0", "repvit_m0_9", "inception_next_atto", other=192),
    **_timm_all("pvt_v2_b0", "lcnet_050", "starnet_s1", "nf_regnet_b0", "convmixer_768_32", other=192),
    **_timm_all("resmlp_12_224", "gmlp_ti16_224", "swiftformer_xs", "sequencer2d_s", "halonet26t", "crossvit_tiny_240"),
    "beit": _timm("beit_base_patch16_224", embed_dim=192, depth=4, num_heads=3),
    "cait": _timm("cait_xxs24_224", depth=4),
    "eva02": _timm("eva02_tiny_patch14_224", depth=4),
}
TIMM["crossvit_tiny_240"] = replace(TIMM["crossvit_tiny_240"], length=240)
TIMM["halonet26t"] = replace(TIMM["halonet26t"], length=256)
TRANSFORMERS = {
    **_transformers("BertForSequenceClassification", **STREAM),
    **_transformers("DistilBertForMaskedLM", vocab_size=VOCABULARY, dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    **_transformers("RobertaForTokenClassification", **STREAM),
    **_transformers("AlbertForSequenceClassification", **STREAM, embedding_size=32),
    **_transformers(
        "DebertaV2ForSequenceClassification", **STREAM, relative_attention=True, pos_att_type=["c2p", "p2c"]
    ),
    **_transformers("ElectraForPreTraining", **STREAM, embedding_size=32),
    **_transformers("MobileBertForSequenceClassification", **STREAM, embedding_size=32, intra_bottleneck_size=32),
    **_transformers(
        "FunnelForSequenceClassification",
        vocab_size=VOCABULARY,
        d_model=64,
        d_inner=128,
        n_head=4,
        d_head=16,
        block_sizes=[1, 1],
    ),
    **_transformers("LongformerForSequenceClassification", length=16, other=24, **STREAM, attention_window=[8, 8]),
    **_transformers(
        "ModernBertForMaskedLM",
        **STREAM,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    **_transformers("GPT2LMHeadModel", **GPT2),
    **_transformers(
        "GPTNeoForCausalLM",
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=32,
        window_size=8,
        attention_types=[[["global", "local"], 1]],
    ),
    **_transformers("GPTNeoXForCausalLM", **STREAM),
    **_transformers("OPTForCausalLM", **{**STREAM, "ffn_dim": 128, "word_embed_proj_dim": 64}),
    **_transformers("LlamaForCausalLM", **GROUPED),
    **_transformers("Qwen2ForCausalLM", **GROUPED),
    **_transformers("Qwen3ForCausalLM", **GROUPED),
    **_transformers("MistralForCausalLM", **GROUPED, sliding_window=8),
    **_transformers("MixtralForCausalLM", **GROUPED, num_local_experts=4),
    **_transformers("GemmaForCausalLM", **GROUPED),
    **_transformers("PhiForCausalLM", **STREAM),
    **_transformers("Phi3ForCausalLM", **{**GROUPED, "eos_token_id": 2}),
    **_transformers("BloomForCausalLM", vocab_size=VOCABULARY, hidden_size=64, n_layer=2, n_head=4),
    **_transformers(
        "MambaForCausalLM", only_ids, vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, state_size=8
    ),
    **_transformers("T5ForConditionalGeneration", both_ids, **T5),
    **_transformers("T5EncoderModel", **T5),
    **_transformers(
        "BartForConditionalGeneration", both_ids, vocab_size=VOCABULARY, max_position_embeddings=32, **SEQ2SEQ
    ),
    **_transformers(
        "MarianMTModel",
        both_ids,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        pad_token_id=0,
        decoder_start_token_id=0,
        **SEQ2SEQ,
    ),
    **_transformers(
        "WhisperForConditionalGeneration",
        spectrum,
        40,
        0,
        vocab_size=VOCABULARY,
        num_mel_bins=16,
        max_source_positions=20,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **SEQ2SEQ,
    ),
    **_transformers("Wav2Vec2ForCTC", sound, 800, 1000, **SPEECH),
    **_transformers("HubertForCTC", sound, 800, 1000, **SPEECH),
    **_transformers(
        "ASTForAudioClassification",
        lambda rows, length: {"input_values": torch.randn(rows, length, 16)},
        24,
        0,
        **{**VISION, "max_length": 24, "num_mel_bins": 16},
    ),
    **_transformers("ViTForImageClassification", pixel_values, 32, 0, **VISION),
    **_transformers("DeiTForImageClassification", pixel_values, 32, 0, **VISION),
    **_transformers("Dinov2Model", pixel_values, 32, 40, **VISION),
    **_transformers(
        "SwinForImageClassification",
        pixel_values,
        32,
        0,
        image_size=32,
        patch_size=2,
        embed_dim=24,
        depths=[2, 2],
        num_heads=[3, 6],
        window_size=4,
    ),
    **_transformers(
        "SegformerForSemanticSegmentation",
        pixel_values,
        64,
        96,
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=64,
    ),
    **_transformers(
        "ConvNextForImageClassification", pixel_values, 64, 96, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]
    ),
    **_transformers("ResNetForImageClassification", pixel_values, 64, 96, **RESNET),
    **_transformers(
        "MobileViTForImageClassification",
        pixel_values,
        64,
        0,
        hidden_sizes=[32, 48, 64],
        neck_hidden_sizes=[16, 16, 32, 48, 64, 80, 96],
        image_size=64,
    ),
    "DetrForObjectDetection": Network("transformers", _detr, pixel_values, 64, 96),
    "RTDetrForObjectDetection": Network("transformers", _rt_detr, pixel_values, 64, 96),
    "CLIPModel": Network("transformers", _clip, picture_and_ids, 12, 9),
    **_transformers("TimeSeriesTransformerForPrediction", series, **SERIES),
    **_transformers("InformerForPrediction", series, **SERIES),
    **_transformers(
        "PatchTSTForPrediction",
        past_values,
        24,
        0,
        num_input_channels=3,
        context_length=24,
        prediction_length=6,
        patch_length=6,
        patch_stride=6,
        d_model=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
    ),
}
BLOCKS: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
CODER = BLOCKS | {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
DIFFUSERS = {
    **_diffusers(
        "UNet2DModel",
        noisy(3),
        **BLOCKS,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    ),
    **_diffusers(
        "UNet2DConditionModel",
        noisy(4, text=True),
        **BLOCKS,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ),
    **_diffusers("AutoencoderKL", lambda rows, length: {"sample": picture(rows, length)}, 32, 48, **CODER),
    **_diffusers(
        "VQModel", lambda rows, length: {"sample": picture(rows, length)}, 32, 48, **CODER, num_vq_embeddings=32
    ),
    **_diffusers(
        "DiTTransformer2DModel",
        labelled,
        8,
        0,
        num_attention_heads=4,
        attention_head_dim=16,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=10,
    ),
    **_diffusers(
        "AutoencoderTiny",
        lambda rows, length: {"sample": picture(rows, length)},
        32,
        48,
        encoder_block_out_channels=(32, 32),
        decoder_block_out_channels=(32, 32),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ),
}
TORCHVISION = {
    "ssdlite320_mobilenet_v3_large": _detector("ssdlite320_mobilenet_v3_large", 320, 256),
    "retinanet_resnet50_fpn": _detector("retinanet_resnet50_fpn", 128, 160),
    "fcos_resnet50_fpn": _detector("fcos_resnet50_fpn", 128, 160),
}
HAND_WRITTEN = {
    name: _own(network, arguments, length, other)
    for name, (network, arguments, length, other) in handwritten.NETWORKS.items()
}
NETWORKS: dict[str, Network] = TIMM | TRANSFORMERS | DIFFUSERS | TORCHVISION | HAND_WRITTEN
