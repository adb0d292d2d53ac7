"""SentenceTransformers that others saved, as our `Embedder`."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import FAMILIES, INSTRUCTION, checkpoint, embedder, film, picture, sample_items, text_checkpoint, workplace
from umr.errors import MediaError, ModelError, RenderError
from umr.items import Item, Video
from umr.models.embedder import Embedder
from umr.models.sentence_transformer import SentenceTransformerEngine

TOLERANCE = 1e-5
PROMPTS = {"query": "Find what is meant.", "document": ""}


def save_foreign(folder: Path, **options: Any) -> Path:
    """What sentence-transformers itself writes."""
    from sentence_transformers import SentenceTransformer

    target = Path(tempfile.mkdtemp(dir=workplace(), prefix="foreign-")) / "model"
    SentenceTransformer(str(folder), device="cpu", **options).save(str(target))
    return target


@functools.cache
def foreign(family: str) -> Path:
    return save_foreign(checkpoint(family))


@functools.cache
def plain(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def inputs() -> tuple[list[Item], list[Any]]:
    """Items, and the same in the terms of sentence-transformers."""
    items = sample_items()
    square, odd = items["several images"].parts[0].source, items["image+text"].parts[0].source
    frames = items["video"].parts[0].source

    def metadata(count: int, fps: float) -> dict[str, Any]:
        return {"total_num_frames": count, "fps": fps, "frames_indices": list(range(count))}

    moving = list(items["video+text"].parts[0].source)
    pairs = [
        (items["text"], "a red circle"),
        (items["long text"], items["long text"].text),
        (items["image"], square),
        (items["image+text"], {"image": odd, "text": "make it blue"}),
        (items["several images"], {"image": [square, odd], "text": "two of them"}),
        (items["video"], {"video": {"array": list(frames), "video_metadata": metadata(4, 2.0)}}),
        (items["video+text"], {"video": {"array": moving, "video_metadata": metadata(3, 1.0)}, "text": "moving"}),
    ]
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", [None, INSTRUCTION])
def test_gives_the_vectors_of_sentence_transformers(family: str, prompt: str | None):
    model = Embedder.load(foreign(family))
    assert isinstance(model.engine, SentenceTransformerEngine) and model.dimension == 128
    ours, theirs = inputs()
    expected = plain(foreign(family)).encode(theirs, prompt=prompt, normalize_embeddings=True)
    vectors = model.encode(ours, "query", prompt)
    assert vectors.dtype == np.float32 and np.abs(vectors - expected).max() <= TOLERANCE
    alone = np.concatenate([model.encode([item], "query", prompt) for item in ours])
    assert np.abs(alone - expected).max() <= TOLERANCE
    assert np.abs(model.encode(ours[::-1], "query", prompt)[::-1] - expected).max() <= TOLERANCE


def test_instructions_of_single_rows():
    model = Embedder.load(foreign("qwen3-vl"))
    ours, theirs = inputs()
    prompts = [INSTRUCTION if number % 2 else None for number in range(len(ours))]
    expected = np.stack(
        [
            plain(foreign("qwen3-vl")).encode([row], prompt=prompt, normalize_embeddings=True)[0]
            for row, prompt in zip(theirs, prompts, strict=True)
        ]
    )
    assert np.abs(model.encode(ours, "query", prompts) - expected).max() <= TOLERANCE
    with pytest.raises(RenderError, match="query side"):
        model.encode(ours, "candidate", INSTRUCTION)


@pytest.mark.parametrize("text", ["https://example.com/cat.png", "https://youtu.be/x", "data:image/png;base64,AAAA", "clip.mp4"])
def test_a_text_is_never_taken_for_an_address(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"")
    model = Embedder.load(foreign("qwen3-vl"))
    message = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    expected = plain(foreign("qwen3-vl")).encode([message], normalize_embeddings=True)
    assert np.abs(model.encode([Item.of(text=text)]) - expected).max() <= TOLERANCE


def test_every_video_of_an_item_counts():
    model = Embedder.load(foreign("qwen3-vl"))
    first, second = Video(film(2), fps=2.0), Video(film(2, seed=500), fps=2.0)
    one, two = model.encode([Item((first,)), Item((first, second))])
    assert np.abs(one - two).max() > 1e-3
    ours = embedder("qwen3-vl").encode([Item((first,)), Item((first, second))])
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_prompts_of_the_model_are_used_on_their_side():
    folder = save_foreign(checkpoint("qwen3-vl"), prompts=PROMPTS, default_prompt_name="query")
    model, st = Embedder.load(folder), plain(folder)
    ours, theirs = inputs()
    assert np.abs(model.encode(ours, "query") - st.encode_query(theirs, normalize_embeddings=True)).max() <= TOLERANCE
    assert np.abs(model.encode(ours, "candidate") - st.encode_document(theirs, normalize_embeddings=True)).max() <= TOLERANCE
    assert np.abs(model.encode(ours, "query") - model.encode(ours, "candidate")).max(1).min() > 1e-3
    own = st.encode(theirs, prompt=INSTRUCTION, normalize_embeddings=True)
    assert np.abs(model.encode(ours, "query", INSTRUCTION) - own).max() <= TOLERANCE


def test_a_text_only_model():
    folder = save_foreign(text_checkpoint())
    model = Embedder.load(folder)
    texts = ["a red circle", "https://example.com/cat.png", "two of them moving " * 9]
    expected = plain(folder).encode(texts, normalize_embeddings=True)
    assert np.abs(model.encode([Item.of(text=text) for text in texts]) - expected).max() <= TOLERANCE
    for item in (Item.of(image=picture(64, 64), id="0:3"), Item.of(video=film(2), text="x", id="0:3")):
        with pytest.raises(MediaError, match=r"item 0:3 holds (image|video), which this model does not take"):
            model.encode([item])


def test_settings_without_effect_are_errors():
    for settings in ({"pooling": "mean"}, {"dimension": 5}, {"template": "chat"}, {"max_pixels": 100}, {"attention": "causal"}):
        with pytest.raises(ModelError, match="would have no effect") as caught:
            Embedder.load(foreign("qwen3-vl"), **settings)
        assert "\n" not in str(caught.value)


def test_kernel_and_dtype_reach_the_model():
    model = Embedder.load(foreign("qwen3-vl"), kernel="eager", dtype="bfloat16").engine.model
    assert model[0].auto_model.config.get_text_config()._attn_implementation == "eager"
    assert str(next(model.parameters()).dtype) == "torch.bfloat16"


def test_saves_itself(tmp_path: Path):
    with pytest.raises(ModelError, match="save_pretrained"):
        Embedder.load(foreign("qwen3-vl")).save(tmp_path / "model")


def test_a_broken_folder_is_one_clear_error(tmp_path: Path):
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(ModelError, match="sentence-transformers cannot load it") as caught:
        Embedder.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_in_a_foreign_folder_is_not_run(tmp_path: Path):
    """A folder that we saved, stripped of our settings, asks for its own pooling code."""
    embedder("qwen3-vl").save(tmp_path / "model")
    (tmp_path / "model" / "umr.json").unlink()
    file = tmp_path / "model" / "umr_pooling.py"
    file.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n" + file.read_text())
    with pytest.raises(ModelError, match="cannot load it"):
        Embedder.load(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_fingerprint():
    first = Embedder.load(foreign("qwen3-vl")).fingerprint
    assert first == Embedder.load(foreign("qwen3-vl")).fingerprint
    others = [embedder("qwen3-vl").fingerprint, Embedder.load(foreign("qwen2-vl")).fingerprint]
    others.append(Embedder.load(foreign("qwen3-vl"), dtype="bfloat16").fingerprint)
    others.append(Embedder.load(save_foreign(checkpoint("qwen3-vl"), prompts=PROMPTS)).fingerprint)
    for name, change in (
        ("chat_template.jinja", lambda text: text + "x"),
        ("processor_config.json", lambda text: with_other_budget(text)),
        ("1_Pooling/config.json", lambda text: text.replace('"mean"', '"cls"')),
    ):
        folder = save_foreign(checkpoint("qwen3-vl"))
        before = (folder / name).read_text("utf-8")
        (folder / name).write_text(change(before), "utf-8")
        assert (folder / name).read_text("utf-8") != before, name
        others.append(Embedder.load(folder).fingerprint)
    assert len({first, *others}) == 1 + len(others)


def with_other_budget(text: str) -> str:
    config = json.loads(text)
    config["image_processor"]["size"]["longest_edge"] = 4096
    return json.dumps(config)
