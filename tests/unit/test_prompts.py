"""Zero-shot prompts: scores are those of a model's own chat template, answers are single tokens, and mistakes name file and key."""

import functools
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tiny import FAMILIES, INSTRUCTION, checkpoint, copy_of, film, picture, text_checkpoint, workplace
from umr.errors import ModelError, RecipeError
from umr.items import Image, Item, Text, Video
from umr.models import backbone
from umr.models.reranker import Reranker
from umr.pipelines.needs import needs_of
from umr.rendering import prompts as module
from umr.rendering.pair_template import MODALITIES, PairTemplate
from umr.rendering.pairs import Pair, PairRenderer
from umr.rendering.prompts import MESSAGE, Prompts, chat_frame

FILE: dict[str, Any] = {
    "answers": ["Yes", "No"],
    "instruction": "Find it.",
    "prompts": {
        "any": "Task: {instruction}\n{query}\n{candidate}\nWell? Yes or No",
        "text -> image": "{candidate_media}\nDoes it show this: {query_text}? Yes or No",
        "image,text -> image": "{query_media}{candidate_media}{instruction} {query_text}",
        "image -> text": "{candidate}|{query}",
    },
}
SENTENCE = Item.of(text="a red circle")
PICTURE = Item.of(image=picture(64, 64, 1))
BOTH = Item.of(image=picture(90, 70, 3), text="make it blue")
PAIRS = [
    (Pair(SENTENCE, INSTRUCTION, PICTURE), [PICTURE, f"\nDoes it show this: {SENTENCE.text}? Yes or No"]),
    (Pair(BOTH, INSTRUCTION, PICTURE), [Item.of(image=picture(90, 70, 3)), PICTURE, f"{INSTRUCTION} {BOTH.text}"]),
    (Pair(BOTH, None, PICTURE), [Item.of(image=picture(90, 70, 3)), PICTURE, f"Find it. {BOTH.text}"]),
    (Pair(PICTURE, None, SENTENCE), [f"{SENTENCE.text}|", PICTURE]),
    (Pair(SENTENCE, None, BOTH), ["Task: Find it.\n", SENTENCE, "\n", BOTH, "\nWell? Yes or No"]),
]
"""Pairs, and what their messages hold."""


def write(content: object, name: str = "prompts.yaml") -> Path:
    path = workplace() / name
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


@functools.cache
def reranker(family: str) -> Reranker:
    return Reranker.load(language_model() if family == "text" else checkpoint(family), template=write(FILE), device="cpu")


def language_model() -> Path:
    """A text-only language model, its head tied to its embeddings."""
    folder = copy_of(text_checkpoint(), "causal-lm")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}), "utf-8")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_chat_template(family: str):
    """The message goes through transformers' own chat template and processor; all logits, softmax over two of them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint(family))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint(family), attn_implementation="eager").eval()
    yes, no = processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])
    expected = []
    for _, message in PAIRS:
        parts = [part for piece in message for part in ([Text(piece)] if isinstance(piece, str) else piece.parts)]
        content = [{"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"} for part in parts]
        string = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        images = [part.open() for part in parts if isinstance(part, Image)]
        with torch.inference_mode():
            logits = model(**processor(text=[string], images=images or None, return_tensors="pt")).logits[0, -1].double()
        expected.append(float(logits[[yes, no]].softmax(0)[0]))
    assert np.std(expected) > 0.01
    assert np.abs(reranker(family).score_pairs([pair for pair, _ in PAIRS]) - expected).max() < 1e-5


def test_llava_next_is_asked_in_its_own_chat_format():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, asked = checkpoint("llava-next"), "Task: Find it.\na red circle\nblue ring\nWell? Yes or No"
    made, pair = reranker("llava-next"), Pair(SENTENCE, None, Item.of(text="blue ring"))
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "text", "text": asked}]
    string = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.inference_mode():
        logits = model(**processor.tokenizer(string, add_special_tokens=False, return_tensors="pt")).logits[0, -1].double()
    expected = logits[processor.tokenizer.convert_tokens_to_ids(["Yes", "No"])].softmax(0)[0]
    pairs = [pair, *(pair for pair, _ in PAIRS)]
    scores = made.score_pairs(pairs)
    assert scores[0] == pytest.approx(float(expected), abs=1e-5)
    assert np.abs(made.score_pairs(pairs[::-1])[::-1] - scores).max() < 1e-5
    other = made.score(SENTENCE, [PICTURE, Item.of(image=picture(64, 64, 7))], INSTRUCTION)
    assert other[0] == pytest.approx(scores[1], abs=1e-5) and abs(other[0] - other[1]) > 1e-4


def test_a_text_model_without_a_chat_template_is_given_the_message_alone():
    made = reranker("text")
    row = made.engine.renderer.render([Pair(SENTENCE, None, Item.of(text="blue ring"))])[0]
    assert made.engine.renderer.tokenizer.decode(row.token_ids_L) == "Task: Find it.\na red circle\nblue ring\nWell? Yes or No\n"
    assert 0 < made.score(SENTENCE, [Item.of(text="blue ring")])[0] < 1


def test_videos_and_the_other_modalities_take_any():
    moving = Item.of(video=Video(film(4), fps=2.0))
    for family in FAMILIES:
        made = reranker(family).engine.renderer
        row = made.render([Pair(moving, None, SENTENCE)])[0]
        assert len(row.blocks) == 1 and "Well? Yes or No" in made.tokenizer.decode(row.token_ids_L)


def test_a_saved_model_keeps_its_prompts_and_its_chat_template(tmp_path: Path):
    made = Reranker.load(checkpoint("qwen3-vl"), template=write(FILE), device="cpu")
    reasons = made.save(tmp_path / "model")
    assert len(reasons) == 1 and "depends on the modalities" in reasons[0]
    again = Reranker.load(tmp_path / "model", device="cpu")
    pairs = [pair for pair, _ in PAIRS]
    assert np.array_equal(again.score_pairs(pairs), made.score_pairs(pairs))
    assert again.fingerprint == made.fingerprint
    name = "chat_template.jinja"
    assert (tmp_path / "model" / name).read_text() == (checkpoint("qwen3-vl") / name).read_text()


def test_the_fingerprint_depends_on_every_prompt():
    changed = {**FILE, "prompts": {**FILE["prompts"], "image -> text": "{candidate}/{query}"}}
    other = Reranker.load(checkpoint("qwen3-vl"), template=write(changed, "changed.yaml"), device="cpu")
    plain = Reranker.load(checkpoint("qwen3-vl"), device="cpu")
    assert len({reranker("qwen3-vl").fingerprint, other.fingerprint, plain.fingerprint}) == 3
    again = Reranker.load(checkpoint("qwen3-vl"), template=str(write(FILE, "copy.yml")), device="cpu")
    assert again.fingerprint == reranker("qwen3-vl").fingerprint


def test_the_prompts_of_the_package_fit_every_pair():
    prompts = Prompts.load(module.DEFAULT)
    assert prompts.answers == ["True", "False"] and prompts.frame is None
    config = backbone.load_config(checkpoint("qwen3-vl"))
    processor = backbone.load_processor(checkpoint("qwen3-vl"), config)
    processor.tokenizer.add_tokens(prompts.answers)
    template = prompts.template(processor, "here")
    items = {"text": SENTENCE, "image": PICTURE, "image,text": BOTH, "video": Item.of(video=Video(film(2), fps=2.0))}
    items["video,text"] = Item((*items["video"].parts, Text("moving")))
    made = PairRenderer(template, processor.tokenizer, backbone.media_reader(processor, config, "global"))
    pairs = [Pair(query, None, candidate) for query in items.values() for candidate in items.values()]
    for pair, row in zip(pairs, made.render(pairs), strict=True):
        words = made.tokenizer.decode(row.token_ids_L)
        assert all(item.text in words for item in (pair.query, pair.candidate))
        assert len(row.blocks) == sum(not isinstance(part, Text) for item in (pair.query, pair.candidate) for part in item.parts)
        assert "True or False" in words and prompts.instruction in words
        assert words.endswith("<|im_end|>\n")
    assert (template.yes, template.no) == ("True", "False")


def byte_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(texts * 20, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", bos_token="<s>")


@pytest.mark.parametrize(
    ("texts", "frame", "expected"),
    [
        (["it is True", "it is False"], "[{message}]", (" True", " False")),
        (["it is True", "it is False", "True", "False"], "[{message}]", (" True", " False")),
        (["it is True", "it is False", "True", "False"], "[{message}]\n", ("True", "False")),
        (["it is True", "it is False", "True", "False"], "{message}<s>", ("True", "False")),
        (["True", "False"], "[{message}]", ("True", "False")),
        (["it is True", "it is False"], "[{message}]<s>", (" True", " False")),
    ],
)
def test_a_space_before_the_answers_where_the_tokenizer_has_them_so(texts: list[str], frame: str, expected: tuple[str, str]):
    file = {"answers": ["True", "False"], "frame": frame, "prompts": {"any": "{instruction}{query}{candidate}"}}
    tokenizer = byte_tokenizer(texts)
    template = Prompts.load(write(file)).template(tokenizer, "here")
    assert (template.yes, template.no) == expected
    made = PairRenderer(template, tokenizer, None)
    assert [tokenizer.decode([made.token_id(answer)]) for answer in expected] == list(expected)


def test_answers_of_several_tokens_are_refused():
    message = "'Perhaps' and 'No' are not both single tokens"
    with pytest.raises(ModelError, match=message):
        Reranker.load(checkpoint("qwen3-vl"), template=write({**FILE, "answers": ["Perhaps", "No"]}), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [True, False]}, r"answers: YAML takes these words for truth values; put them in quotes"),
        ({"answers": ["Yes"]}, "answers: "),
        ({"answers": ["Yes", "Yes"]}, "two different words"),
        ({"prompt": {}}, "prompt: unknown key"),
        ({"prompts": {"text -> image": "{query}{candidate}"}}, "prompts: needs the key any"),
        ({"prompts": {"any": "{query}{instruction}"}}, r"prompts: any needs either \{candidate\}"),
        ({"prompts": {"any": 3}}, "prompts.any: "),
        ({"prompts": {**FILE["prompts"], "text -> picture": "{query}{candidate}"}}, "'text -> picture' is no pair of modalities"),
        ({"prompts": {**FILE["prompts"], "text": "{query}{candidate}"}}, "'text' is no pair of modalities"),
        ({"prompts": {**FILE["prompts"], "text -> text": "{query_text}{query_media}{candidate}"}}, r"\{query_media\} has no effect"),
        ({"prompts": {**FILE["prompts"], "image,text -> text": "{query_text}{candidate}"}}, r"both \{query_media\} and \{query_text\}"),
        ({"prompts": {**FILE["prompts"], "text -> text": "{query}{query_text}{candidate}"}}, r"either \{query\} or \{query_text\}"),
        ({"prompts": {**FILE["prompts"], "text -> text": "{query}{answer}{candidate}"}}, r"no placeholder \{answer\}"),
        ({"prompts": {"any": "{query}{candidate}", "text -> text": "{query}{candidate}"}}, "instruction has no effect"),
        ({"frame": "no place"}, r"frame: must hold \{message\} once"),
    ],
)
def test_mistakes_name_the_file_and_the_key(change: dict[str, Any], message: str):
    path = write({**FILE, **change}, "wrong.yaml")
    with pytest.raises(ModelError, match=message) as caught:
        Prompts.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_files_that_are_no_prompts(tmp_path: Path):
    for content in ("{", "- 1", ""):
        (tmp_path / "x.yaml").write_text(content)
        with pytest.raises(ModelError, match=r"x\.yaml: "):
            Prompts.load(tmp_path / "x.yaml")
    with pytest.raises(ModelError, match=r"absent\.yaml: cannot be read \(No such file"):
        Reranker.load(checkpoint("qwen3-vl"), template=tmp_path / "absent.yaml", device="cpu")


def test_chat_templates_that_do_not_show_a_message():
    folder = copy_of(checkpoint("qwen3-vl"), "chat")
    for template, message in (("nothing", "does not show"), ("{{ raise_exception('never') }}", r"cannot be used \(never\)")):
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(ModelError, match=message):
            Reranker.load(folder, template=write(FILE), device="cpu")
    stated = {**FILE, "frame": "<|im_start|>user\n" + MESSAGE + "<|im_end|>\n"}
    assert Reranker.load(folder, template=write(stated, "stated.yaml"), device="cpu").answers == ("Yes", "No")


def test_a_model_that_thinks_is_told_not_to():
    tokenizer = byte_tokenizer(["a"])
    tokenizer.chat_template = (
        "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}{% if add_generation_prompt %}ANSWER"
        "{% if enable_thinking is defined and enable_thinking is false %}<no-thoughts>{% endif %}{% endif %}"
    )
    assert chat_frame(tokenizer, "here") == f"<s>{MESSAGE}</s>ANSWER<no-thoughts>"


def test_templates_without_prompts_keep_their_hash():
    """Fingerprints of rerankers that were saved before prompts could be given stay what they were."""
    template = PairTemplate("x", "{instruction}{query}{candidate}")
    fields = {key: value for key, value in vars(template).items() if key not in ("name", "by_modality")}
    assert template.hash == sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def test_a_pipeline_needs_a_prompts_file_and_not_those_of_the_package():
    config = {"model": "m", "reranker": "r", "benchmark": "b"}
    for kind in ("eval", "score", "fuse"):
        named = {need.key: need.role for need in needs_of(kind, {**config, "prompts": "mine.yaml"})}
        assert named["prompts"] == "file"
        assert "prompts" not in {need.key for need in needs_of(kind, {**config, "prompts": "zero-shot"})}
    recipe = {"model": {"path": "m", "template": "mine.yaml"}, "data": []}
    assert {need.key for need in needs_of("train", {"recipe": recipe})} == {"model.path", "model.template"}


def test_prompts_without_a_reranker_to_load_are_refused(capsys: pytest.CaptureFixture[str]):
    from umr.cli import main
    from umr.mining.scoring import ScoreSettings, _loader

    assert main(["eval", "--model", "m", "--benchmark", "b", "--prompts", "mine.yaml"]) == 1
    assert "--prompts has no effect without --rerank" in capsys.readouterr().err
    settings = ScoreSettings.model_validate({"prompts": str(write(FILE))})
    with pytest.raises(RecipeError, match="prompts has no effect on a reranker that is loaded already"):
        _loader(reranker("qwen3-vl"), settings)
    assert _loader(checkpoint("qwen3-vl"), settings)(None).fingerprint == reranker("qwen3-vl").fingerprint


def test_every_modality_of_an_item_can_be_named():
    parts = [Image(picture(8, 8)), Video(film(2)), Text("x")]
    kinds = {Item(tuple(part for bit, part in enumerate(parts) if mask >> bit & 1)).modality for mask in range(1, 8)}
    assert kinds == set(MODALITIES)
