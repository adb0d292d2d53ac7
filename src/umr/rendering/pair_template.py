"""The pair template: how a query and its candidates become one question to a language model. Pure data, saved and hashed.

A layout is the sequence as text, with special tokens written out and these placeholders:

| placeholder | becomes |
|---|---|
| `{instruction}` | the query's instruction, or `default_instruction` |
| `{query}` | every part of the query in its order |
| `{query_media}`, `{query_text}` | its images and videos; its texts (for layouts that put the instruction between them) |
| `{candidate}` | every part of the candidate, in `pointwise` and in `choice` |
| `{candidate_media}`, `{candidate_text}` | its images and videos; its texts; in `pointwise` only |
| `{candidates}` | in `listwise`: the candidates one after the other, each as `choice` says |
| `{number}` | in `choice`: 1 for the first candidate, 2 for the second, ... |

A literal of one space between two placeholders is dropped when one of them is empty. A layout ends where the answer begins.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from umr.errors import ModelError
from umr.files import write_text
from umr.rendering.template import hash_of, split_layout

FILE_NAME = "pair_template.json"
ZERO_SHOT, PROMPTS_SUFFIXES = "zero-shot", (".yaml", ".yml")
"""Name of the prompts that come with this package (`umr.rendering.prompts`), and how names of prompts files end: they become a pair
template when the checkpoint is known."""
MOST_CANDIDATES = 5
MODALITIES = ("text", "image", "image,text", "video", "video,text", "image,video", "image,video,text")
"""What an item may hold, as `Item.modality` spells it."""
_PLACEHOLDERS = {
    "pointwise": {"instruction", "query", "query_media", "query_text", "candidate", "candidate_media", "candidate_text"},
    "listwise": {"instruction", "query", "query_media", "query_text", "candidates"},
    "choice": {"number", "candidate"},
}


@dataclass(frozen=True)
class PairTemplate:
    """A named pointwise layout, with a listwise one where there is one.

    Attributes:
        name: for people; two templates are the same when their `hash` is.
        pointwise: layout of a query with one candidate.
        listwise: layout of a query with several candidates; `""` when the convention has none.
        choice: layout of one of several candidates.
        default_instruction: what `{instruction}` becomes without one.
        yes: the answer that accepts a candidate.
        no: the answer that rejects it.
        by_modality: layouts that take the place of `pointwise` for some queries and candidates, by their modalities: `"text -> image"`.
            Such a layout names the parts that the two have, and may leave the instruction out; then so may `pointwise`.
    """

    name: str
    pointwise: str
    listwise: str = ""
    choice: str = "({number}) {candidate}\n"
    default_instruction: str = ""
    yes: str = "Yes"
    no: str = "No"
    by_modality: dict[str, str] = field(default_factory=dict, hash=False)  # a dict has no hash; equal templates still have equal ones

    def __post_init__(self) -> None:
        layouts = self.by_modality if isinstance(self.by_modality, dict) else {"": None}
        values = [value for name, value in vars(self).items() if name != "by_modality"]
        if not all(isinstance(value, str) for value in (*values, *layouts, *layouts.values())):
            raise ModelError(f"pair template {self.name!r}: every field must be a text")
        for name in ("pointwise", "listwise", "choice"):
            if name != "listwise" or self.listwise:
                self._check_layout(name, name, getattr(self, name))
        for name, layout in layouts.items():
            self._check_layout("pointwise", name, layout)
        if self.yes == self.no or not self.yes or not self.no:
            raise ModelError(f"pair template {self.name!r}: yes and no must be two different words")

    def _check_layout(self, kind: str, name: str, layout: str) -> None:
        found = [placeholder for placeholder, _ in split_layout(layout) if placeholder != "literal"]
        if unknown := sorted(set(found) - _PLACEHOLDERS[kind]):
            allowed = ", ".join(sorted(_PLACEHOLDERS[kind]))
            raise ModelError(f"pair template {self.name!r}: {name} has no placeholder {{{unknown[0]}}}; use one of {allowed}")
        if repeated := [placeholder for placeholder in found if found.count(placeholder) > 1]:
            raise ModelError(f"pair template {self.name!r}: {{{repeated[0]}}} stands twice in {name}")
        if kind == "pointwise":
            modalities = name.split(" -> ") if name != kind else ["", ""]
            if len(modalities) != 2 or (name != kind and not set(modalities) <= set(MODALITIES)):
                raise ModelError(
                    f"pair template {self.name!r}: {name!r} is no pair of modalities; write it like 'text -> image', each one of "
                    f"{'; '.join(MODALITIES)}"
                )
            for side, modality in zip(("query", "candidate"), modalities, strict=True):
                self._check_side(name, found, side, modality)
        else:
            wanted = "candidates" if kind == "listwise" else "candidate"
            if wanted not in found:
                raise ModelError(f"pair template {self.name!r}: {name} has no {{{wanted}}}")
            if kind == "listwise":
                self._check_side(name, found, "query", "")
        if kind != "choice" and not self.by_modality and "instruction" not in found:
            raise ModelError(f"pair template {self.name!r}: {name} has no {{instruction}}, so instructions would have no effect")

    def _check_side(self, name: str, found: list[str], side: str, modality: str) -> None:
        """Whether a layout shows every part of the query or the candidate, once; those of any modality where that is `""`."""
        has = {"text": not modality or "text" in modality, "media": modality != "text"}
        shown = [part for part in has if f"{side}_{part}" in found]
        if idle := [part for part in shown if not has[part]]:
            raise ModelError(
                f"pair template {self.name!r}: {{{side}_{idle[0]}}} has no effect in {name!r}, whose {side} has none; leave it out"
            )
        wanted = [part for part in ("media", "text") if has[part]]
        if len(shown) != (0 if side in found else len(wanted)):
            parts = ("both " if len(wanted) > 1 else "") + " and ".join(f"{{{side}_{part}}}" for part in wanted)
            raise ModelError(f"pair template {self.name!r}: {name} needs either {{{side}}} or {parts}")

    @property
    def answers(self) -> tuple[str, ...]:
        """What a reranker may answer: yes, no, and the numbers of several candidates."""
        return (self.yes, self.no, *(str(number + 1) for number in range(MOST_CANDIDATES)))

    @property
    def hash(self) -> str:
        """Twelve hex digits over everything that changes a rendering or its answers; the name does not."""
        return hash_of(self, () if self.by_modality else ("by_modality",))  # without them, the hash from before they could be given

    def save(self, folder: Path) -> None:
        """Write `pair_template.json` into a model folder."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> PairTemplate:
        """Read a template file. Raises `ModelError` when it is not a pair template."""
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"{path}: not a pair template file ({error})") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error


_SYSTEM = "<|im_start|>system\n{words}<|im_end|>\n<|im_start|>user\n"
_ANSWER = "<|im_end|>\n<|im_start|>assistant\n"

UMARVEL = PairTemplate(
    name="umarvel",
    pointwise=_SYSTEM.replace("{words}", "You are a helpful assistant.")
    + "I will provide you with a query and a candidate. Please evaluate whether the candidate meets the requirements of the query. "
    "If it does, respond with 'Yes'; if it doesn't, respond with 'No'.\n"
    "Query:{query_media}{instruction} {query_text}\nCandidate:{candidate}" + _ANSWER,
    listwise=_SYSTEM.replace("{words}", "You are a helpful assistant.")
    + "I will provide you with a query followed by multiple candidates. Please answer with the number of the candidate that meets "
    "the requirements of the query.\n"
    "Query:{query_media}{instruction} {query_text}\nCandidates:\n{candidates}" + _ANSWER,
)
"""U-MARVEL's message (spec/umarvel.md 1.9), spelt right, on lines of their own. Default for chat backbones."""

SHORT = PairTemplate(
    name="short",
    pointwise="<|im_start|>user\n{query_media}{instruction} {query_text}<|im_end|>\n<|im_start|>user\n{candidate}" + _ANSWER,
    listwise="<|im_start|>user\n{query_media}{instruction} {query_text}<|im_end|>\n<|im_start|>user\n{candidates}" + _ANSWER,
)
"""A query turn and a candidate turn without any words, for models trained from scratch: a tenth of the tokens."""

PLAIN = PairTemplate(
    name="plain",
    pointwise="Query: {query_media}{instruction} {query_text}\nCandidate: {candidate}\n"
    "Does the candidate meet the requirements of the query? Answer Yes or No.\n",
    listwise="Query: {query_media}{instruction} {query_text}\nCandidates:\n{candidates}"
    "Which candidate meets the requirements of the query? Answer with its number.\n",
)
"""For backbones without a chat format, text-only ones included."""

QWEN3_VL = PairTemplate(
    name="qwen3-vl-reranker",
    pointwise=_SYSTEM.replace(
        "{words}",
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
        'Note that the answer can only be "yes" or "no".',
    )
    + "<Instruct>: {instruction}<Query>:{query}\n<Document>:{candidate}"
    + _ANSWER,
    default_instruction="Given a search query, retrieve relevant candidates that answer the query.",
    yes="yes",
    no="no",
)
"""Qwen3-VL-Reranker's convention; it has no listwise form."""

BUILT_IN = {template.name: template for template in (UMARVEL, SHORT, PLAIN, QWEN3_VL)}
"""Templates that a recipe or `Reranker.load` can name."""


def resolve(template: str | Path | PairTemplate) -> PairTemplate:
    """A built-in by name, a template file by `Path`, or the template itself."""
    if isinstance(template, PairTemplate):
        return template
    if isinstance(template, Path):
        return PairTemplate.load(template)
    if template not in BUILT_IN:
        raise ModelError(
            f"unknown pair template {template!r}; built in are {', '.join(sorted(BUILT_IN))}, and zero-shot; a file is given as a Path"
        )
    return BUILT_IN[template]
