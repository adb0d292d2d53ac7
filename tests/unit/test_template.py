import json
from dataclasses import replace
from pathlib import Path

import pytest

from umr.errors import ModelError
from umr.rendering.template import BUILT_IN, CHAT, PLAIN, Template, resolve, split_layout, umarvel

GOOD = {"name": "t", "with_instruction": "{skip}{instruction}{/skip} {content}", "without_instruction": "{content}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"with_instruction": "{instruction}{contents}"}, "unknown placeholder {contents}"),
        ({"with_instruction": "{instruction}{content}{Text_2}"}, "unknown placeholder {Text_2}"),
        ({"without_instruction": "{}{content}"}, "unknown placeholder {}"),
        ({"with_instruction": "{skip}{instruction}{content}"}, "do not pair up"),
        ({"with_instruction": "{/skip}{instruction}{skip}{content}"}, "do not pair up"),
        ({"with_instruction": "{skip}{skip}{instruction}{/skip}{/skip}{content}"}, "do not pair up"),
        ({"without_instruction": "nothing of the item"}, "needs either {content}"),
        ({"without_instruction": "{media}"}, "needs either {content}"),
        ({"without_instruction": "{content}{media}{text}"}, "needs either {content}"),
        ({"without_instruction": "{content}{content}"}, "{content} stands twice"),
        ({"without_instruction": "{media}{text}{text}"}, "{text} stands twice"),
        ({"with_instruction": "{content}"}, "would have no effect"),
        ({"default_instruction": "Represent it."}, "default_instruction has no effect"),
        ({"suffix": {"text": "!"}}, "suffix has no effect"),
    ],
    ids=str,
)
def test_refuses_layouts_that_would_lose_something(change: dict, message: str):
    with pytest.raises(ModelError) as caught:
        Template(**{**GOOD, **change})
    assert message in str(caught.value) and "\n" not in str(caught.value) and "'t'" in str(caught.value)


def test_hash_covers_all_but_the_name():
    template = Template(**GOOD)
    assert replace(template, name="other").hash == template.hash
    assert len(template.hash) == 12
    others = [
        replace(template, with_instruction="{instruction} {content}"),
        replace(template, without_instruction=" {content}"),
        replace(template, without_instruction="{instruction}{content}", default_instruction="x"),
        replace(template, without_instruction="{content}{suffix}", suffix={"text": "!"}),
        replace(template, without_instruction="{content}{suffix}", suffix={"image": "!"}),
        replace(template, without_instruction="{content}{suffix}"),
    ]
    assert len({template.hash, *(other.hash for other in others)}) == 7
    assert len({template.hash for template in BUILT_IN.values()}) == len(BUILT_IN) == 8
    assert hash(template) == hash(Template(**GOOD)), "usable as a key"


@pytest.mark.parametrize("template", BUILT_IN.values(), ids=list(BUILT_IN))
def test_a_file_gives_back_what_was_saved(tmp_path: Path, template: Template):
    template.save(tmp_path)
    again = Template.load(tmp_path / "template.json")
    assert again == template and again.hash == template.hash
    assert resolve(tmp_path / "template.json") == template


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"name": "t"}',
        json.dumps({**GOOD, "colour": "red"}),
        json.dumps({**GOOD, "suffix": "all"}),
        json.dumps({**GOOD, "suffix": {"text": 1}}),
        json.dumps({**GOOD, "with_instruction": None}),
        json.dumps({**GOOD, "default_instruction": 4}),
        json.dumps({**GOOD, "with_instruction": "{instruktion}{content}"}),
    ],
)
def test_a_broken_file_is_one_clear_error_naming_it(tmp_path: Path, text: str):
    path = tmp_path / "template.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=r"template\.json") as caught:
        Template.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path: Path):
    with pytest.raises(ModelError, match="not a template file"):
        Template.load(tmp_path / "none.json")
    (tmp_path / "template.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="not a template file"):
        Template.load(tmp_path / "template.json")


def test_split_layout():
    assert split_layout("a{skip}b{/skip}{content}") == [("literal", "a"), ("skip", ""), ("literal", "b"), ("/skip", ""), ("content", "")]
    assert split_layout("") == []
    # Braces that are no placeholder are text.
    assert split_layout('{ "a": {b c} }') == [("literal", '{ "a": {b c} }')]


def test_resolve():
    assert resolve("chat") is CHAT and resolve("plain") is PLAIN and resolve(CHAT) is CHAT
    with pytest.raises(ModelError, match="unknown template 'chatty'"):
        resolve("chatty")


def test_umarvel_switches():
    plain, one_word, prompt = umarvel(), umarvel(one_word=True), umarvel(generation_prompt=True)
    assert not plain.suffix and plain.without_instruction.endswith("<emb>.<|im_end|>\n")
    assert prompt.with_instruction == plain.with_instruction + "<|im_start|>assistant\n"
    assert one_word.suffix["image,text"] == "\nSummarize above image and sentence in one word: "
    assert one_word.suffix["text"] == "\nSummarize above sentence in one word: "
    assert one_word.suffix["image"] == "\nSummarize above image in one word: "
    assert BUILT_IN["umarvel-one-word-generation-prompt"] == umarvel(one_word=True, generation_prompt=True)
