"""The model that MM-Embed's training starts from: LLaVA-NeXT's eyes on NV-Embed's language model (spec/mm-embed-and-mbeir.md 1.2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from umr.errors import ModelError
from umr.models import backbone, llava
from umr.models.embedder import EmbeddingModel, RenderedEngine
from umr.models.embedding_rows import make_room
from umr.models.importing_nvidia import Opened, open_nv_embed
from umr.rendering.renderer import Renderer
from umr.rendering.template import MM_EMBED


def open_with_eyes(source: Path, eyes: Path) -> Opened:
    """NV-Embed with the vision tower and the projector of a LLaVA-NeXT, ready to be trained on images.

    The projector was trained for LLaVA-NeXT's own language model, so vectors of images mean little before training.

    Args:
        source: folder of NV-Embed's layout.
        eyes: folder of a LLaVA-NeXT whose language model is as wide and whose tokenizer numbers the same texts alike.

    Raises:
        ModelError: a folder is something else, or the two do not fit together.
    """
    text = open_nv_embed(source)
    language, model = text.engine.model.network, text.engine.model
    config = backbone.load_config(eyes)
    if config.model_type != "llava_next":
        raise ModelError(f"{eyes}: a {config.model_type} checkpoint; the eyes come from a LLaVA-NeXT (llava_next)")
    wide, found = language.config.hidden_size, config.text_config.hidden_size
    if wide != found:
        raise ModelError(f"{eyes}: projects images to a width of {found}, and the language model of {source} has {wide}; they do not fit")
    processor = backbone.load_processor(eyes, config)
    _check_vocabulary(source, text.engine.processor, eyes, processor.tokenizer)
    network = backbone.load_model(eyes, config, "bidirectional", "sdpa", language.dtype)
    network.language_model, network.config.text_config = language, language.config
    tokenizer = backbone.tokenizer_of(processor)
    new_rows = make_room(network, max(len(tokenizer), config.image_token_index + 1))
    rows_VD = network.get_input_embeddings().weight
    if tokenizer.pad_token_id >= len(rows_VD) - new_rows:  # as the released MM-Embed looks padding up
        with torch.no_grad():
            rows_VD[tokenizer.pad_token_id] = rows_VD[tokenizer.eos_token_id]
    settings = replace(model.settings, image_tiles="global")
    vision = backbone.media_reader(processor, network.config, settings.image_tiles)
    renderer = Renderer(MM_EMBED, tokenizer, vision, settings.max_tokens, settings.pooling)
    whole = EmbeddingModel(network, settings, llava.FAMILY, tokenizer.pad_token_id, model.latent)
    return Opened(RenderedEngine(whole, renderer, processor), new_rows)


def _check_vocabulary(source: Path, ours: object, eyes: Path, theirs: object) -> None:
    """Rows of the embedding matrix come from one folder and token ids from the other."""
    known, seen = backbone.tokenizer_of(ours).get_vocab(), backbone.tokenizer_of(theirs).get_vocab()
    if different := sorted(token for token, number in known.items() if seen.get(token) != number):
        raise ModelError(
            f"{eyes}: its tokenizer numbers {len(different)} tokens unlike that of {source} ({different[0]!r} among them); take the "
            "LLaVA-NeXT that was made from the same Mistral"
        )
