"""Zero-shot prompts: what a language model that was never trained for it is asked about a query and a candidate.

A prompts file holds the messages; the checkpoint's own chat template says what stands around a message. Both together are a
pair template, and everything else is as for a trained reranker (`docs/reranking.md`, spec/mm-embed-and-mbeir.md 1.6).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from umr.errors import ModelError
from umr.rendering.pair_template import PROMPTS_SUFFIXES, ZERO_SHOT, PairTemplate
from umr.rendering.pairs import PairRenderer

DEFAULT = Path(__file__).with_name("zero_shot.yaml")
MESSAGE = "{message}"
ANY = "any"


class Prompts(BaseModel):
    """The content of a prompts file; `zero_shot.yaml` describes its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    answers: list[str] = Field(min_length=2, max_length=2)
    prompts: dict[str, str]
    instruction: str = ""
    frame: str | None = None

    @field_validator("answers", mode="before")
    @classmethod
    def _in_quotes(cls, answers: Any) -> Any:
        if isinstance(answers, list) and any(isinstance(answer, bool) for answer in answers):
            raise ValueError('YAML takes these words for truth values; put them in quotes: ["True", "False"]')
        return answers

    @field_validator("frame")
    @classmethod
    def _holds_a_message(cls, frame: str | None) -> str | None:
        if frame is not None and frame.count(MESSAGE) != 1:
            raise ValueError(f"must hold {MESSAGE} once")
        return frame

    @field_validator("prompts")
    @classmethod
    def _has_a_default(cls, prompts: dict[str, str]) -> dict[str, str]:
        if ANY not in prompts:
            raise ValueError("needs the key any, for the modalities that no other key names")
        return prompts

    @model_validator(mode="after")
    def _has_effect(self) -> Prompts:
        if self.instruction and not any("{instruction}" in prompt for prompt in self.prompts.values()):
            raise ValueError("instruction has no effect: no prompt has {instruction}; leave it out")
        return self

    @classmethod
    def load(cls, path: Path) -> Prompts:
        """Read a prompts file.

        Raises:
            ModelError: unreadable, an unknown or missing key, a value of another kind, or a prompt with a bad placeholder.
        """
        try:
            prompts = cls.model_validate(yaml.safe_load(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: cannot be read ({getattr(error, 'strerror', error)}); give a prompts file in YAML") from error
        except yaml.YAMLError as error:
            raise ModelError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            what = "unknown key; remove it or correct its name" if first["type"] == "extra_forbidden" else first["msg"]
            raise ModelError(f"{path}: {key + ': ' if key else ''}{what.removeprefix('Value error, ')}") from error
        prompts._template(MESSAGE, "", path)  # what is wrong with a prompt is wrong with every checkpoint
        return prompts

    def template(self, processor: Any, where: object) -> PairTemplate:
        """The pair template of these prompts for a checkpoint: prompts in their frame, and the answers as its tokenizer writes them.

        Args:
            processor: the checkpoint's, or its tokenizer.
            where: named in errors, such as the prompts file.

        Raises:
            ModelError: the chat template cannot be used, or an answer is not one token, with and without a space before it.
        """
        frame = self.frame_for(processor, where)
        tokenizer = getattr(processor, "tokenizer", processor)
        made = [PairRenderer(self._template(frame, space, where), tokenizer, None) for space in ("", " ")]
        for one in reversed(made) if made[0].ends_in_text else made:  # what goes on after a word begins with a space
            if all(one.token_id(answer) is not None for answer in one.template.answers[:2]):
                return one.template
        yes, no = self.answers
        raise ModelError(
            f"{where}: answers: {yes!r} and {no!r} are not both single tokens of this tokenizer where the prompts end, with or without a "
            "space before them; choose two other words"
        )

    def frame_for(self, processor: Any, where: object) -> str:
        """The layout around a message: the file's own, else that of the checkpoint's chat template. Raises `ModelError`."""
        return chat_frame(processor, where) if self.frame is None else self.frame

    def _template(self, frame: str, space: str, where: object) -> PairTemplate:
        layouts = {pair: frame.replace(MESSAGE, prompt) for pair, prompt in self.prompts.items()}
        yes, no = (space + answer for answer in self.answers)
        try:
            return PairTemplate(
                name=ZERO_SHOT, pointwise=layouts.pop(ANY), default_instruction=self.instruction, yes=yes, no=no, by_modality=layouts
            )
        except ModelError as error:
            what = str(error).removeprefix(f"pair template {ZERO_SHOT!r}: ").replace("pointwise", ANY)
            raise ModelError(f"{where}: prompts: {what}") from error


def resolve(template: str | Path) -> tuple[Prompts, Path] | None:
    """The prompts that a template's name or path stands for, and where they are from; None for what names no prompts file."""
    path = DEFAULT if template == ZERO_SHOT else Path(template)
    return (Prompts.load(path), path) if path.suffix in PROMPTS_SUFFIXES else None


def chat_frame(processor: Any, where: object) -> str:
    """What a checkpoint's chat template writes around a user's message, up to where the answer begins, with `{message}` in its place.

    A model without a chat template is given the message alone, after the token that its tokenizer begins texts with.

    Args:
        processor: the checkpoint's, or its tokenizer.
        where: named in errors.

    Raises:
        ModelError: the chat template fails, or does not show the message once.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    chat = getattr(processor, "chat_template", None)
    if chat is None:
        begins = tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        return f"{tokenizer.bos_token if begins else ''}{MESSAGE}\n"
    mark = "THE-MESSAGE"
    content: Any = [{"type": "text", "text": mark}] if hasattr(processor, "image_processor") else mark
    try:
        shown: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], chat_template=chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
    except Exception as error:  # a chat template is a program, and fails in its own ways
        raise ModelError(f"{where}: the chat template cannot be used ({str(error).splitlines()[0]}); give a frame") from error
    if shown.count(mark) != 1:
        raise ModelError(f"{where}: the chat template does not show a user's message once; give a frame")
    return shown.replace(mark, MESSAGE)
