"""What `Embedder.save` writes, read by plain sentence-transformers in a process that cannot import umr."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiny import FAMILIES, INSTRUCTION, checkpoint, embedder, picture, sample_items, text_checkpoint
from umr.errors import ModelError
from umr.items import Image, Item, Text, Video
from umr.models import exchange
from umr.models.embedder import Embedder, RenderedEngine
from umr.rendering.renderer import Renderer
from umr.rendering.template import CHAT, Template, umarvel

TOLERANCE = 1e-5
NO_SKIP = Template(
    name="no-skip",
    with_instruction='<|im_start|>user\n{instruction} 🎈 "so" {{% \n{content}<|im_end|>\n',
    without_instruction="<|im_start|>user\n{instruction}{content}<|im_end|>\n",
    default_instruction="Répète 🎈\n",
)
"""A model without instruction masking, and with characters that need care in a Jinja template."""

MODELS: dict[str, dict[str, Any]] = {
    "qwen3-vl": {"family": "qwen3-vl"},
    "qwen2-vl": {"family": "qwen2-vl"},
    "qwen2.5-vl": {"family": "qwen2.5-vl"},
    "causal": {"family": "qwen3-vl", "attention": "causal"},
    "dimension": {"family": "qwen3-vl", "dimension": 32},
    "last": {"family": "qwen3-vl", "pooling": "last"},
    "last, qwen2": {"family": "qwen2-vl", "pooling": "last"},
    "latent": {"family": "qwen3-vl", "pooling": "latent"},
    "latent, left padded": {"family": "qwen3-vl", "pooling": "latent"},
    "latent, qwen2.5, dimension": {"family": "qwen2.5-vl", "pooling": "latent", "dimension": 32},
    "latent, no skip": {"family": "qwen2-vl", "pooling": "latent", "template": NO_SKIP},
    "no skip": {"family": "qwen3-vl", "template": NO_SKIP},
    "umarvel": {"family": "qwen2-vl", "template": "umarvel"},
    "budget": {"family": "qwen3-vl", "min_pixels": 32 * 32, "max_pixels": 64 * 64},
    "budget, qwen2": {"family": "qwen2-vl", "max_pixels": 56 * 56},
}
PLAIN_CODE = ("no skip", "last", "last, qwen2")
"""Models that must load without `trust_remote_code`."""

READER = """
import importlib.abc, json, sys, warnings
from pathlib import Path
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "umr" or name.startswith("umr."):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
try:
    import umr
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("umr can be imported here")
import torch
if torch.version.cuda is None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        try:
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass
torch.set_num_threads(1)
import numpy as np, PIL.Image
from sentence_transformers import SentenceTransformer

place = Path(sys.argv[1])
job = json.loads((place / "job.json").read_text("utf-8"))

def value(part):
    kind, content, *rest = part
    if kind == "text":
        return content
    if kind == "image":
        return PIL.Image.open(place / content)
    frames = [PIL.Image.fromarray(frame) for frame in np.load(place / content)]
    metadata = {"total_num_frames": len(frames), "fps": rest[0], "frames_indices": list(range(len(frames)))}
    return {"array": frames, "video_metadata": metadata}

def as_input(parts):
    kinds = [part[0] for part in parts]
    if len(kinds) == 1 and kinds[0] != "video":
        return value(parts[0])
    if len(set(kinds)) < len(kinds) and kinds != sorted(kinds):
        return [{"role": "user", "content": [{"type": p[0], p[0]: value(p)} for p in parts]}]
    out = {}
    for part in parts:
        out.setdefault(part[0], []).append(value(part))
    return {kind: values[0] if len(values) == 1 else values for kind, values in out.items()}

inputs = [as_input(parts) for parts in job["items"]]
messages = [i for i, row in enumerate(inputs) if isinstance(row, list)]  # not to be mixed with other inputs
others = [i for i in range(len(inputs)) if i not in messages]

def mixed(st, prompt):
    rows = dict(zip(others, st.encode([inputs[i] for i in others], prompt=prompt)))
    rows |= dict(zip(messages, st.encode([inputs[i] for i in messages], prompt=prompt)))
    return np.stack([rows[i] for i in range(len(inputs))])

def alone(st, prompt):
    return np.stack([st.encode([row] if i in messages else row, prompt=prompt).reshape(-1) for i, row in enumerate(inputs)])

for name, model in job["models"].items():
    st = SentenceTransformer(model["folder"], device="cpu", trust_remote_code=model["trust"])
    out = {"left": st.tokenizer.padding_side == "left"}
    for label, prompt in (("with", job["instruction"]), ("without", None)):
        out["mixed " + label] = mixed(st, prompt)
        if model["alone"]:
            out["alone " + label] = alone(st, prompt)
    np.savez(place / (model["out"] + ".npz"), **out)
    (place / (model["out"] + ".json")).write_text(json.dumps([type(module).__name__ for module in st]))
"""


def write_items(place: Path) -> list[list[Any]]:
    """The sample items as files that the other process reads."""
    rows = []
    for number, item in enumerate(sample_items().values()):
        row: list[Any] = []
        for index, part in enumerate(item.parts):
            name = f"{number}-{index}"
            if isinstance(part, Text):
                row.append(["text", part.text])
            elif isinstance(part, Image):
                part.source.save(place / f"{name}.png")
                row.append(["image", f"{name}.png"])
            else:
                np.save(place / f"{name}.npy", np.stack([np.asarray(frame) for frame in part.source]))
                row.append(["video", f"{name}.npy", part.fps])
        rows.append(row)
    return rows


def pad_on_the_left(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), "padding_side": "left"}), "utf-8")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """For each of `MODELS`: the vectors of plain sentence-transformers and of ours. One process reads them all."""
    place = tmp_path_factory.mktemp("exchange")
    job: dict[str, Any] = {"items": write_items(place), "instruction": INSTRUCTION, "models": {}}
    found: dict[str, dict[str, Any]] = {}
    items = list(sample_items().values())
    for number, (name, settings) in enumerate(MODELS.items()):
        model, folder = embedder(**settings), place / f"model{number}"
        found[name] = {"folder": folder, "reasons": model.save(folder)}
        if "left padded" in name:
            pad_on_the_left(folder)
        found[name]["ours with"] = model.encode(items, "query", INSTRUCTION)
        found[name]["ours without"] = model.encode(items)
        job["models"][name] = {"folder": str(folder), "out": f"out{number}", "trust": name not in PLAIN_CODE, "alone": name == "qwen3-vl"}
    (place / "job.json").write_text(json.dumps(job), "utf-8")
    (place / "reader.py").write_text(READER, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"HF_HOME": str(place / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-I", str(place / "reader.py"), str(place)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for number, name in enumerate(MODELS):
        found[name] |= np.load(place / f"out{number}.npz")
        found[name]["modules"] = json.loads((place / f"out{number}.json").read_text())
    return found


@pytest.mark.parametrize("name", MODELS)
def test_plain_sentence_transformers_gives_the_same_vectors(elsewhere: dict[str, dict[str, Any]], name: str):
    found = elsewhere[name]
    assert found["reasons"] == []
    kinds = list(sample_items())
    for key in [key for key in found if key.startswith(("mixed", "alone"))]:
        ours = found["ours " + key.split()[1]]
        assert found[key].shape == ours.shape
        difference = np.abs(found[key] - ours).max(1)
        assert difference.max() <= TOLERANCE, {kind: float(d) for kind, d in zip(kinds, difference, strict=True) if d > TOLERANCE}
    assert np.abs(found["ours with"] - found["ours without"]).max(1).min() > 1e-3, "the prompt has an effect"


def test_batches_of_both_padding_sides_were_compared(elsewhere: dict[str, dict[str, Any]]):
    assert {name: bool(found["left"]) for name, found in elsewhere.items()} == {name: "left padded" in name for name in MODELS}


def test_vectors_alone_were_compared_too(elsewhere: dict[str, dict[str, Any]]):
    assert {"alone with", "alone without", "mixed with", "mixed without"} <= set(elsewhere["qwen3-vl"])


def test_a_shorter_vector_is_a_prefix_of_unit_length(elsewhere: dict[str, dict[str, Any]]):
    short, full = elsewhere["dimension"]["mixed with"], elsewhere["qwen3-vl"]["mixed with"]
    assert short.shape[1] == 32
    prefix = full[:, :32] / np.linalg.norm(full[:, :32], axis=1, keepdims=True)
    assert np.abs(short - prefix).max() <= TOLERANCE


def test_code_is_carried_only_where_it_is_needed(elsewhere: dict[str, dict[str, Any]]):
    for name, found in elsewhere.items():
        carried = sorted(file.name for file in found["folder"].rglob("*.py"))
        if name.startswith("latent"):
            expected, module = ["latent_attention.py", "latent_pooling.py", "masked_pooling.py"], "MaskedLatentPooling"
        elif name in PLAIN_CODE:
            expected, module = [], "Pooling"
        else:
            expected, module = ["umr_pooling.py"], "MaskedMeanPooling"
        assert carried == expected
        assert found["modules"] == ["Transformer", module, "Normalize"]


@pytest.mark.parametrize("name", MODELS)
def test_ours_loads_what_it_saved(elsewhere: dict[str, dict[str, Any]], name: str):
    settings = MODELS[name]
    again = Embedder.load(elsewhere[name]["folder"])
    assert again.fingerprint == embedder(**settings).fingerprint
    assert again.engine.renderer.template.hash == embedder(**settings).engine.renderer.template.hash
    items = list(sample_items().values())
    assert np.array_equal(again.encode(items, "query", INSTRUCTION), elsewhere[name]["ours with"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"positions": "flat"}, "positions='flat'"),
        ({"template": "umarvel-one-word"}, "suffix"),
        ({"template": "umarvel", "pooling": "token_before_emb"}, "token_before_emb"),
        ({"template": "plain"}, "skips"),
        ({"pooling": "last", "dimension": 32}, "dimension"),
    ],
    ids=str,
)
def test_says_what_cannot_be_expressed_and_saves_all_the_same(tmp_path: Path, settings: dict[str, Any], reason: str):
    model = embedder("qwen3-vl", **settings)
    reasons = model.save(tmp_path / "model")
    assert len(reasons) == 1 and reason in reasons[0] and "\n" not in reasons[0]
    assert not (tmp_path / "model" / "modules.json").exists()
    again = Embedder.load(tmp_path / "model")
    items = list(sample_items().values())
    assert again.fingerprint == model.fingerprint
    assert np.array_equal(again.encode(items, "query", INSTRUCTION), model.encode(items, "query", INSTRUCTION))


def test_a_text_only_model_is_saved_for_ourselves(tmp_path: Path):
    model = Embedder.load(text_checkpoint())
    assert ["chat format" in reason for reason in model.save(tmp_path / "model")] == [True]
    item = Item.of(text="a red circle")
    assert np.array_equal(Embedder.load(tmp_path / "model").encode([item]), model.encode([item]))


def span(with_instruction: str, without_instruction: str) -> object:
    base = embedder("qwen3-vl").engine
    renderer = Renderer(Template("t", with_instruction, without_instruction), base.renderer.tokenizer, base.renderer.vision)
    engine = RenderedEngine(base.model, renderer, base.processor)
    found = exchange.skipped_span(engine)
    return found and tuple(engine.renderer.tokenizer.convert_ids_to_tokens(list(found)))


def test_which_skipped_spans_the_pooling_module_can_find():
    system = "{skip}<|im_start|>system\n{instruction}<|im_end|>{/skip}\n"
    user = "<|im_start|>user\n{content}<|im_end|>\n"
    borders = ("<|im_start|>", "<|im_end|>")
    assert span(system + user, system + user) == borders
    assert span("{instruction}" + user, user) == ()
    marked = "<|im_start|>user\n{skip}<instruction_start>{instruction}<instruction_end>{/skip}{content}<|im_end|>"
    assert span(marked, user) == ("<instruction_start>", "<instruction_end>")
    # Not: rows without an instruction would lose their user turn.
    assert span(system + user, user) is None
    # Not: another turn opens before, or closes within, or the borders are no special tokens.
    assert span("<|im_start|>x<|im_end|>" + system + user, "<|im_start|>x<|im_end|>" + system + user) is None
    double = "{skip}<|im_start|>system\nx<|im_end|>\n<|im_start|>system\n{instruction}<|im_end|>{/skip}\n"
    assert span(double + user, double + user) is None
    assert span("{skip}{instruction}\n{/skip}" + user, user) is None
    twice = system + "{skip}<|im_start|>{/skip}" + user
    assert span(twice, twice) is None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_saving_over_an_old_model_replaces_all_of_it(tmp_path: Path):
    folder = tmp_path / "model"
    embedder("qwen3-vl").save(folder)
    (folder / "leftover.txt").write_text("old")
    embedder("qwen2-vl", template="plain").save(folder)
    assert not (folder / "leftover.txt").exists() and not (folder / "modules.json").exists()
    assert Embedder.load(folder).fingerprint == embedder("qwen2-vl", template="plain").fingerprint
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("where", ["processor", "modules", "rename"])
def test_an_interrupted_save_leaves_the_old_model_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    folder = tmp_path / "model"
    embedder("qwen3-vl").save(folder)
    before = contents(folder)
    other = embedder("qwen3-vl", template=umarvel())
    real = os.replace

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def fail_to_move_in(source: str, target: Any) -> None:
        if Path(target) == folder and ".old." not in str(source):
            raise OSError("disk full")
        real(source, target)

    if where == "processor":
        monkeypatch.setattr(other.engine.processor, "save_pretrained", interrupt)
    elif where == "modules":
        monkeypatch.setattr(exchange, "write_modules", interrupt)
    else:
        monkeypatch.setattr(os, "replace", fail_to_move_in)
    with pytest.raises((KeyboardInterrupt, OSError)):
        other.save(folder)
    monkeypatch.undo()
    assert contents(folder) == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"], "nothing half-written stays behind"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_never_writes_over_something_that_is_no_model(tmp_path: Path, kind: str):
    target = tmp_path / "precious"
    if kind == "folder":
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    else:
        target.write_text("years of work")
    with pytest.raises(ModelError, match="something else than a model"):
        embedder("qwen3-vl").save(target)
    assert (target / "thesis.txt" if kind == "folder" else target).read_text() == "years of work"


def test_saving_leaves_the_model_in_memory_as_it_was(tmp_path: Path):
    model = Embedder.load(checkpoint("qwen3-vl"), template="umarvel")
    before = model.engine.processor.chat_template, model.fingerprint
    model.save(tmp_path / "model")
    assert (model.engine.processor.chat_template, model.fingerprint) == before


def test_adapters_must_be_merged_first(tmp_path: Path):
    from umr.models.parts import add_lora, merge_lora

    model = Embedder.load(checkpoint("qwen3-vl"))
    model.engine.model.network = add_lora(model.engine.model.network, 2, 4, 0.0, ["language"])
    with pytest.raises(ModelError, match="merge"):
        model.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    model.engine.model.network = merge_lora(model.engine.model.network)
    assert model.save(tmp_path / "model") == []
    item = Item.of(text="a red circle", image=picture(64, 64))
    assert np.abs(Embedder.load(tmp_path / "model").encode([item]) - model.encode([item])).max() <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_at_the_token_limit_is_cut_alike(tmp_path: Path, family: str):
    """Both engines cut the text's end and keep the closing of the turn."""
    from sentence_transformers import SentenceTransformer

    model = Embedder.load(checkpoint(family), max_tokens=48)
    model.save(tmp_path / "model")
    text = "two of them moving over the scene, " * 40
    (row,) = model.engine.renderer.render([Item.of(text=text)])
    assert len(row.token_ids_L) == 48
    st = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=True)
    assert np.abs(st.encode([text]) - model.encode([Item.of(text=text)])).max() <= TOLERANCE


def test_the_default_template_in_jinja():
    import jinja2

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    render = environment.from_string(exchange.jinja(CHAT, timestamps=False)).render
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " {{ x }} \n"}]}
    vision = "<|vision_start|><|image_pad|><|vision_end|>"
    expected = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n" + vision + " {{{{ x }}}} \n<|im_end|>\n"
    assert render(messages=[user]) == expected.format("Represent the user's input.")
    for content in ("Find it.", [{"type": "text", "text": "Find it."}]):
        assert render(messages=[{"role": "system", "content": content}, user]) == expected.format("Find it.")


def test_parts_that_the_template_does_not_know_are_refused_not_dropped(elsewhere: dict[str, dict[str, Any]]):
    from sentence_transformers import SentenceTransformer

    st = SentenceTransformer(str(elsewhere["qwen3-vl"]["folder"]), device="cpu", trust_remote_code=True)
    messages = [{"role": "user", "content": [{"type": "text", "text": "before"}, {"type": "image", "image": picture(64, 64)}]}]
    assert st.encode([messages]).shape == (1, 128)
    with pytest.raises(Exception, match="must be messages, or none"):
        st.encode([messages, "a text"])


def test_a_folder_copied_elsewhere_still_loads(tmp_path: Path, elsewhere: dict[str, dict[str, Any]]):
    """No path of this machine is written into the folder."""
    folder = elsewhere["qwen3-vl"]["folder"]
    shutil.copytree(folder, tmp_path / "copy")
    for name, data in contents(tmp_path / "copy").items():
        assert str(folder.parent).encode() not in data, name
    assert Embedder.load(tmp_path / "copy").fingerprint == embedder("qwen3-vl").fingerprint


def test_videos_of_the_sample_items_have_rates_that_matter():
    """Otherwise equality of videos above would not cover their times."""
    rates = {part.fps for item in sample_items().values() for part in item.parts if isinstance(part, Video)}
    assert len(rates) > 2
