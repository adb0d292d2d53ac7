"""LLaVA-NeXT checkpoints from nothing: the parts that differ from a Qwen-VL's (see `umr.models.tiny`).

The tokenizer's own tokens are named as Mistral's, and an image is a square of 96 pixels in 6 x 6 patches, World's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umr.models.tiny import Size

FAMILY = "llava-next"
IMAGE = "<image>"
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SCAFFOLD = ["Instruct: ", "\nQuery: "]
TOKEN_VECTORS = ("image_newline", "class_embedding")
"""Parameters that stand for a token and are no matrix."""
_SIDE, _PATCH = 96, 16
_GRIDS = [[_SIDE, 2 * _SIDE], [2 * _SIDE, _SIDE], [2 * _SIDE, 2 * _SIDE], [3 * _SIDE, _SIDE], [_SIDE, 3 * _SIDE]]


def processor(tokenizer: Any) -> Any:
    """A LLaVA-NeXT processor of transformers."""
    from transformers import LlavaNextImageProcessor, LlavaNextProcessor

    from umr.models.exchange import jinja
    from umr.rendering.template import MM_EMBED

    images = LlavaNextImageProcessor(
        size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}, image_grid_pinpoints=_GRIDS
    )
    return LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy drops
        image_token=IMAGE,
        chat_template=jinja(MM_EMBED, timestamps=False, image=IMAGE, ends={"bos": tokenizer.bos_token, "eos": tokenizer.eos_token}),
    )


def config(size: Size, tokenizer: Any) -> Any:
    """CLIP, a projector and Mistral; widths and depths as of the other families."""
    from transformers import CLIPVisionConfig, LlavaNextConfig, MistralConfig

    text = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 2,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        max_position_embeddings=4096,
        sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        use_cache=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_hidden * 2,
        num_hidden_layers=size.vision_depth + 1,  # features come from the layer before the last
        num_attention_heads=size.vision_heads,
        image_size=_SIDE,
        patch_size=_PATCH,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=_GRIDS,
        image_seq_length=(_SIDE // _PATCH) ** 2,
        tie_word_embeddings=True,
    )
