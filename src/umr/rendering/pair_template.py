"""The pair template: how a query and its candidates become one question to a language model. Pure data, saved and hashed.

A layout is the sequence as text, with special tokens written out and these placeholders:

| placeholder | becomes |
|---|---|
| `{instruction}` | the query's instruction, or `default_instruction` |
| `{query}` | every part of the query in its order |
| `{query_media}`, `{query_text}` | its images and videos; its texts (for layouts that put the instruction between them) |
| `{candidate}` | every part of the candidate, in `pointwise` and in `choice` |
| `{candidates}` | in `listwise`: the candidates one after the other, each as `choice` says |
| `{number}` | in `choice`: 1 for the first candidate, 2 for the second, ... |

A literal of one space between two placeholders is dropped when one of them is empty. A layout ends where the answer begins.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from umr.errors import ModelError
from umr.files import write_text
from umr.rendering.template import hash_of, split_layout

FILE_NAME = "pair_template.json"
MOST_CANDIDATES = 5
_PLACEHOLDERS = {
    "pointwise": {"instruction", "query", "query_media", "query_text", "candidate"},
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
    """

    name: str
    pointwise: str
    listwise: str = ""
    choice: str = "({number}) {candidate}\n"
    default_instruction: str = ""
    yes: str = "Yes"
    no: str = "No"

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in asdict(self).values()):
            raise ModelError(f"pair template {self.name!r}: every field must be a text")
        for field, candidate in (("pointwise", "candidate"), ("listwise", "candidates"), ("choice", "candidate")):
            layout: str = getattr(self, field)
            if field == "listwise" and not layout:
                continue
            found = [kind for kind, _ in split_layout(layout) if kind != "literal"]
            if unknown := sorted(set(found) - _PLACEHOLDERS[field]):
                allowed = ", ".join(sorted(_PLACEHOLDERS[field]))
                raise ModelError(f"pair template {self.name!r}: {field} has no placeholder {{{unknown[0]}}}; use one of {allowed}")
            if repeated := [kind for kind in found if found.count(kind) > 1]:
                raise ModelError(f"pair template {self.name!r}: {{{repeated[0]}}} stands twice in {field}")
            if candidate not in found:
                raise ModelError(f"pair template {self.name!r}: {field} has no {{{candidate}}}")
            if field != "choice":
                self._check_query(field, found)
        if self.yes == self.no or not self.yes or not self.no:
            raise ModelError(f"pair template {self.name!r}: yes and no must be two different words")

    def _check_query(self, field: str, found: list[str]) -> None:
        if ("query" in found) == ("query_text" in found and "query_media" in found):
            raise ModelError(f"pair template {self.name!r}: {field} needs either {{query}} or both {{query_media}} and {{query_text}}")
        if "instruction" not in found:
            raise ModelError(f"pair template {self.name!r}: {field} has no {{instruction}}, so instructions would have no effect")

    @property
    def answers(self) -> tuple[str, ...]:
        """What a reranker may answer: yes, no, and the numbers of several candidates."""
        return (self.yes, self.no, *(str(number + 1) for number in range(MOST_CANDIDATES)))

    @property
    def hash(self) -> str:
        """Twelve hex digits over everything that changes a rendering or its answers; the name does not."""
        return hash_of(self)

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
        raise ModelError(f"unknown pair template {template!r}; built in are {', '.join(sorted(BUILT_IN))}; a file is given as a Path")
    return BUILT_IN[template]
