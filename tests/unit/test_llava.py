"""LLaVA-NeXT: tokens and pixels of an image, MM-Embed's format and its mask."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import INSTRUCTION, checkpoint, embedder, picture, sample_items
from umr.errors import ModelError, RenderError
from umr.items import Image, Item, Text
from umr.models import backbone, llava
from umr.models.embedder import Embedder
from umr.models.masked_pooling import MaskedMeanPooling
from umr.models.pooling import means
from umr.rendering.llava_vision import LlavaReader, to_crops, to_patches
from umr.rendering.renderer import Rendered, Renderer
from umr.rendering.template import CHAT, MM_EMBED, MM_EMBED_PUBLISHED, Template

SIZES = [(96, 96), (64, 128), (300, 40), (40, 300), (97, 95), (1, 50), (400, 1), (192, 192), (500, 499)]


def folder() -> Any:
    return checkpoint("llava-next")


def network() -> Any:
    return embedder("llava-next").engine.model.network


def config() -> Any:
    return backbone.load_config(folder())


def processor() -> Any:
    return backbone.load_processor(folder(), config())


def reader(tiles: Any) -> LlavaReader:
    return LlavaReader(processor(), config(), tiles)


def rendered(
    item: Item, instruction: str | None = None, template: Template = MM_EMBED, tiles: str = "global"
) -> tuple[Rendered, list[str]]:
    """A row, and its tokens as text."""
    engine = embedder("llava-next", image_tiles=tiles, template=template).engine
    row = engine.prepare([item], "query" if instruction else "candidate", [instruction])[0]
    return row, engine.renderer.tokenizer.convert_ids_to_tokens(row.token_ids_L.tolist())


def text_of(row: Rendered, pooled: bool | None = None) -> str:
    """A row as text, each image as one `<image>`; only its pooled tokens, or only the others."""
    tokenizer = embedder("llava-next").engine.renderer.tokenizer
    kept = np.ones(len(row.pool_L), bool) if pooled is None else row.pool_L == pooled
    text = tokenizer.decode(row.token_ids_L[kept].tolist(), clean_up_tokenization_spaces=False)
    while "<image><image>" in text:
        text = text.replace("<image><image>", "<image>")
    return text


# Pixels and tokens.


def test_the_whole_image_is_the_first_crop_of_transformers_and_takes_one_token_a_patch_and_one_more():
    stock, whole, tiled = processor(), reader("global"), reader("anyres")
    for width, height in SIZES:
        image = picture(width, height)
        crops = stock.image_processor(images=[image], return_tensors="pt")["pixel_values"][0]
        (block,), (blocks,) = whole.images([image]), tiled.images([image])
        assert block.grid == (1, 6, 6) and torch.equal(to_crops(block.patches_PC, 96, 16), crops[:1])
        assert block.pieces == ((whole.image_id,) * 37,) and block.image_size == (height, width)
        assert blocks.grid == (len(crops), 6, 6) and torch.equal(to_crops(blocks.patches_PC, 96, 16), crops)


def test_a_square_of_336_pixels_in_patches_of_14_makes_576_tokens_and_the_end_of_the_line():
    large, stock = config(), processor()
    large.vision_config.image_size, large.vision_config.patch_size = 336, 14
    large.image_grid_pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    stock.image_processor.size, stock.image_processor.crop_size = {"shortest_edge": 336}, {"height": 336, "width": 336}
    (block,) = LlavaReader(stock, large, "global").images([picture(500, 400)])
    assert block.grid == (1, 24, 24) and [len(piece) for piece in block.pieces] == [576 + 1]
    (block,) = LlavaReader(stock, large, "anyres").images([picture(672, 672)])
    assert block.grid == (5, 24, 24) and [len(piece) for piece in block.pieces] == [576 + 48 * 49]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700))
def test_tiles_take_as_many_tokens_as_transformers_counts(width: int, height: int):
    engine = embedder("llava-next", image_tiles="anyres").engine
    (expected,) = engine.processor._get_num_multimodal_tokens([(height, width)]).num_image_tokens
    assert engine.renderer.vision._tokens((height, width), 6) == expected


@pytest.mark.parametrize("size", SIZES)
def test_the_model_takes_what_is_rendered_and_gives_what_transformers_own_processor_gives(size: tuple[int, int]):
    engine = embedder("llava-next", image_tiles="anyres").engine
    image = picture(*size)
    row = engine.prepare([Item.of(image=image, text="make it blue")], "candidate", [None])[0]
    theirs = engine.processor(text="<s><image>\nmake it blue</s>", images=image, return_tensors="pt")
    assert theirs["input_ids"][0].tolist() == row.token_ids_L.tolist()
    with torch.inference_mode():
        batch, _ = backbone.collate([row], 0, "mrope")
        ours = backbone.hidden_states(network(), batch, "llava_next")
        assert (ours - network()(**theirs).last_hidden_state).abs().max() < 1e-6


def test_the_whole_image_alone_has_the_features_that_it_has_before_its_tiles():
    image = picture(130, 70)
    theirs = embedder("llava-next").engine.processor.image_processor(images=[image], return_tensors="pt")
    with torch.inference_mode():
        tiled = network().get_image_features(**theirs).pooler_output[0]
        (alone,) = llava.whole_image_features(network(), theirs["pixel_values"][:, 0], theirs["image_sizes"])
    assert alone.shape == (37, 128) and (alone[:36] - tiled[:36]).abs().max() < 1e-6
    assert torch.equal(alone[36], network().image_newline)


def test_cutting_into_patches_can_be_undone():
    crops = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    patches = to_patches(crops, 4)
    assert patches.shape == (8, 48) and torch.equal(patches[1].reshape(3, 4, 4), crops[0, :, :4, 4:])
    assert torch.equal(to_crops(patches, 8, 4), crops)


# The format.


@pytest.mark.parametrize(
    ("kind", "query", "candidate"),
    [
        ("text", "<s>Instruct: {i}\nQuery: a red circle</s>", "<s>a red circle</s>"),
        ("image", "<s>Instruct: {i}\nQuery: <image>\n</s>", "<s><image>\n</s>"),
        ("image+text", "<s>Instruct: {i}\nQuery: <image>\nmake it blue</s>", "<s><image>\nmake it blue</s>"),
        ("text, image, text", "<s>Instruct: {i}\nQuery: <image>\nbeforeafter</s>", "<s><image>\nbeforeafter</s>"),
    ],
)
def test_mm_embeds_format(kind: str, query: str, candidate: str):
    item = sample_items()[kind]
    assert text_of(rendered(item, INSTRUCTION)[0]) == query.format(i=INSTRUCTION)
    assert text_of(rendered(item)[0]) == candidate
    assert rendered(item)[0].pool_L.all(), "nothing of a candidate is left out"


def test_a_template_with_ends_leaves_out_those_that_a_tokenizer_does_not_have():
    row = embedder("qwen3-vl", template="mm-embed").engine.prepare([Item.of(text="a red circle")], "candidate", [None])[0]
    tokenizer = embedder("qwen3-vl").engine.renderer.tokenizer
    assert tokenizer.bos_token is None and tokenizer.decode(row.token_ids_L.tolist()) == "a red circle<|im_end|>"


def test_the_end_of_the_row_is_its_last_pooled_token():
    for kind in ("text", "long text", "image", "image+text"):
        row = embedder("llava-next", pooling="last", attention="causal").engine.prepare([sample_items()[kind]], "query", [INSTRUCTION])[0]
        assert row.pool_L.sum() == 1 and row.pool_L[-1] and text_of(row, pooled=True) == "</s>"


def test_text_is_cut_before_the_end_token():
    row = embedder("llava-next", max_tokens=40).engine.prepare([Item.of(text="two of them moving " * 30)], "query", [INSTRUCTION])[0]
    assert len(row.token_ids_L) == 40 and text_of(row).startswith("<s>Instruct: ") and text_of(row).endswith("</s>")


# The mask.

CONTENT = Template(
    name="content in order",
    with_instruction="{skip}{bos}Instruct: {instruction}\nQuery: {/skip}{content}{eos}",
    without_instruction="{bos}{content}{eos}",
)
PLACES = {
    "before": Item((Image(picture(64, 64)), Text("make it blue"))),
    "inside": Item((Text("a red"), Image(picture(64, 90)), Text("circle"))),
    "after": Item((Text("make it blue"), Image(picture(64, 64)), Image(picture(30, 90)))),
    "none": Item.of(text="make it blue"),
    "alone": Item.of(image=picture(64, 64)),
}


@pytest.mark.parametrize("tiles", ["global", "anyres"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("template", [MM_EMBED, MM_EMBED_PUBLISHED, CONTENT], ids=lambda template: template.name)
def test_the_mask_leaves_out_exactly_the_instruction(template: Template, place: str, tiles: str):
    row, _ = rendered(PLACES[place], INSTRUCTION, template, tiles)
    prefix = "<s>Instruct: " + INSTRUCTION + ("\n" if template is MM_EMBED_PUBLISHED else "\nQuery: ")
    # A space at the border that a tokenizer joins with the first word counts as content (see TokenSequence).
    assert text_of(row, pooled=False).rstrip(" ") == prefix.rstrip(" ")
    assert text_of(row, pooled=False) + text_of(row, pooled=True) == text_of(row)
    images = row.types_L == 1
    assert row.pool_L[images].all() and images.sum() == sum(len(piece) for block in row.blocks for piece in block.pieces)


def test_an_instruction_that_speaks_of_images_or_ends_is_text_and_is_left_out():
    instruction = "Find <image> and </s>.\nQuery: this"
    row, tokens = rendered(PLACES["inside"], instruction, CONTENT)
    assert tokens.count("<image>") == 37 and tokens.count("</s>") == 1 and tokens.count("<s>") == 1
    assert text_of(row, pooled=False).rstrip(" ") == f"<s>Instruct: {instruction}\nQuery:"


@pytest.mark.parametrize("left", [False, True], ids=["right padding", "left padding"])
def test_padding_on_either_side_leaves_the_mask_where_it_is(left: bool):
    marked = Template(
        name="marked",
        with_instruction="{bos}{skip}<instruction_start>{instruction}<instruction_end>{/skip}{content}{eos}",
        without_instruction="{bos}{content}{eos}",
    )
    model = Embedder.load(folder(), template=marked, device="cpu")
    rows = model.engine.prepare(list(PLACES.values()), "query", [INSTRUCTION, "Short.", None, INSTRUCTION, None])
    expected = np.concatenate([model.engine.forward([row]) for row in rows])
    tokenizer = model.engine.renderer.tokenizer
    start, end = tokenizer.convert_tokens_to_ids(["<instruction_start>", "<instruction_end>"])
    batch, pool_BL = backbone.collate(rows, tokenizer.pad_token_id, "mrope")
    if left:
        shifts = [pool_BL.shape[1] - len(row.pool_L) for row in rows]
        for name in ("input_ids", "attention_mask"):
            batch[name] = torch.stack([row.roll(shift) for row, shift in zip(batch[name], shifts, strict=True)])
        pool_BL = torch.stack([pool.roll(shift) for pool, shift in zip(pool_BL, shifts, strict=True)])
    with torch.inference_mode():
        hidden_BLD = backbone.hidden_states(network(), batch, "llava_next")
        ours = torch.nn.functional.normalize(means(hidden_BLD[pool_BL], pool_BL.sum(1).tolist()), dim=-1)
        module = MaskedMeanPooling(128, start, end)
        theirs = module({"token_embeddings": hidden_BLD, "input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    assert np.abs(ours.numpy() - expected).max() <= 1e-5
    assert np.abs(torch.nn.functional.normalize(theirs["sentence_embedding"], dim=-1).numpy() - expected).max() <= 1e-5


# Refusals.


def test_what_has_no_effect_or_cannot_be_is_refused_in_one_line():
    def the_error(family: str = "llava-next", **settings: Any) -> str:
        with pytest.raises(ModelError) as caught:
            Embedder.load(checkpoint(family), **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "min_pixels and max_pixels have no effect on a LLaVA-NeXT" in the_error(max_pixels=10_000)
    assert "image_tiles='many'; use one of global, anyres" in the_error(image_tiles="many")
    assert "image_tiles='anyres' has no effect on a qwen3_vl backbone" in the_error("qwen3-vl", image_tiles="anyres")
    assert "positions='flat' has no effect" in the_error(positions="flat")
    with pytest.raises(RenderError, match="reads text and images, and an item holds a video"):
        embedder("llava-next").encode([sample_items()["video"]])


def test_tiles_with_a_class_token_are_refused():
    full, stock = config(), processor()
    full.vision_feature_select_strategy = "full"
    (block,) = LlavaReader(stock, full, "global").images([picture(9, 9)])
    assert len(block.pieces[0]) == 38
    with pytest.raises(RenderError, match="image_tiles='anyres' needs vision_feature_select_strategy='default'"):
        LlavaReader(stock, full, "anyres")


def test_a_special_token_of_another_family_is_missed_when_the_template_is_read():
    with pytest.raises(RenderError, match=r"template 'chat' uses <\|im_start\|>"):
        Renderer(CHAT, embedder("llava-next").engine.renderer.tokenizer, None)
