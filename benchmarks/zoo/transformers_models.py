"""Models of the transformers library with random weights. A width is that of hidden states, a depth counts layers."""

from typing import Any

from torch import nn

from benchmarks.zoo.entry import Scale

VOCABULARY = 99
HEADS = 4
CLASSES = 5
POSITIONS = 160
"""Longest text."""
PATCH = 8
MEL_BINS = 8
_CLASSIFIER: dict[str, Any] = {"num_labels": CLASSES}


def _text(scale: Scale) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": scale.width,
        "intermediate_size": 4 * scale.width,
        "num_hidden_layers": scale.depth,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
    }


def _picture(scale: Scale) -> dict[str, Any]:
    return {
        "hidden_size": scale.width,
        "intermediate_size": 4 * scale.width,
        "num_hidden_layers": scale.depth,
        "num_attention_heads": HEADS,
        "image_size": scale.extent,
        "patch_size": PATCH,
    }


def _pair(scale: Scale) -> dict[str, Any]:
    """An encoder and a decoder."""
    sizes = {"layers": scale.depth, "ffn_dim": 2 * scale.width, "attention_heads": HEADS}
    both = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in sizes.items()}
    return {"d_model": scale.width, **both}


def bert(scale: Scale) -> nn.Module:
    """Classifies a text with padding."""
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**_text(scale), **_CLASSIFIER))


def gpt2(scale: Scale) -> nn.Module:
    """Next tokens; the table of embeddings is tied to the last layer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=POSITIONS,
        n_embd=scale.width,
        n_layer=scale.depth,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
    )
    return GPT2LMHeadModel(config)


def llama(scale: Scale) -> nn.Module:
    """Next tokens; rotary positions, RMSNorm, grouped queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_text(scale), num_key_value_heads=2, use_cache=False))


def t5(scale: Scale) -> nn.Module:
    """Text to text; positions as a bias of the attention."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=scale.width,
        d_kv=scale.width // HEADS,
        d_ff=2 * scale.width,
        num_layers=scale.depth,
        num_heads=HEADS,
        use_cache=False,
    )
    return T5ForConditionalGeneration(config)


def whisper(scale: Scale) -> nn.Module:
    """Sound to text."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    tokens: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=MEL_BINS,
        max_source_positions=scale.extent // 2,
        max_target_positions=scale.extent,
        use_cache=False,
        **tokens,
        **_pair(scale),
    )
    return WhisperForConditionalGeneration(config)


def vit(scale: Scale) -> nn.Module:
    """Classifies a picture."""
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**_picture(scale), **_CLASSIFIER))


def clip(scale: Scale) -> nn.Module:
    """Text and picture, compared."""
    from transformers import CLIPConfig, CLIPModel

    text = _text(scale) | {"bos_token_id": 1, "eos_token_id": VOCABULARY - 1}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=_picture(scale), projection_dim=scale.width // 2))


def swin(scale: Scale) -> nn.Module:
    """Attention in shifted windows; two stages of `depth` layers."""
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=scale.extent,
        patch_size=2,
        embed_dim=scale.width,
        depths=[scale.depth] * 2,
        num_heads=[2, 4],
        window_size=4,
        **_CLASSIFIER,
    )
    return SwinForImageClassification(config)


def segformer(scale: Scale) -> nn.Module:
    """A class for every place; four stages of `depth` layers, joined by Resize."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        hidden_sizes=[scale.width * factor for factor in (1, 2, 3, 4)],
        depths=[scale.depth] * 4,
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=2 * scale.width,
        **_CLASSIFIER,
    )
    return SegformerForSemanticSegmentation(config)


def detr(scale: Scale) -> nn.Module:
    """Boxes from a set of queries, on a ResNet of the library's own: it needs neither timm nor torchvision."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    widths = [scale.width // 4 * factor for factor in (1, 2, 3, 4)]
    sizes: dict[str, Any] = {
        "embedding_size": widths[0],
        "hidden_sizes": widths,
        "depths": [scale.depth] * 4,
        "out_features": ["stage4"],
    }
    backbone = ResNetConfig(layer_type="basic", **sizes)
    return DetrForObjectDetection(DetrConfig(backbone_config=backbone, num_queries=6, **_CLASSIFIER, **_pair(scale)))
