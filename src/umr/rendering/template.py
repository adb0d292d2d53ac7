"""The template: how an item, an instruction and a side become one sequence. Pure data, saved with the model and hashed.

A layout is the sequence as text, with special tokens written out and these placeholders:

| placeholder | becomes |
|---|---|
| `{instruction}` | the query's instruction, or `default_instruction` |
| `{content}` | every part of the item in its order |
| `{media}`, `{text}` | images and videos; texts (for layouts that put the instruction between them) |
| `{suffix}` | the text that `suffix` holds for the item's modality |
| `{skip}` ... `{/skip}` | tokens between are attended to but left out of pooling |
| `{bos}`, `{eos}` | the tokenizer's token for the start and the end of a text, where it has one |

One space directly before `{text}` is dropped when the item has no text, one newline directly after `{media}` when it has no media.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from umr.errors import ModelError
from umr.files import write_text

FILE_NAME = "template.json"
PLACEHOLDERS = ("instruction", "content", "media", "text", "suffix", "skip", "/skip", "bos", "eos")
_PLACEHOLDER = re.compile(r"\{(/?\w*)\}")


@dataclass(frozen=True)
class Template:
    """A named pair of layouts.

    Attributes:
        name: for people; two templates are the same when their `hash` is.
        with_instruction: layout of a row that has an instruction.
        without_instruction: layout of every other row, candidates included.
        default_instruction: what `{instruction}` becomes in `without_instruction`.
        suffix: text by modality, or by `"<modality> with instruction"` for rows that have one and differ; others get none.
    """

    name: str
    with_instruction: str
    without_instruction: str
    default_instruction: str = ""
    suffix: dict[str, str] = field(default_factory=dict, hash=False)  # a dict has no hash; equal templates still have equal ones

    def __post_init__(self) -> None:
        for layout in (self.with_instruction, self.without_instruction):
            found = _PLACEHOLDER.findall(layout)
            if unknown := sorted(set(found) - set(PLACEHOLDERS)):
                raise ModelError(f"template {self.name!r}: unknown placeholder {{{unknown[0]}}}; use one of {', '.join(PLACEHOLDERS)}")
            borders = [name for name in found if name in ("skip", "/skip")]
            if borders != ["skip", "/skip"] * (len(borders) // 2):
                raise ModelError(f"template {self.name!r}: {{skip}} and {{/skip}} do not pair up")
            if repeated := [name for name in ("content", "media", "text") if found.count(name) > 1]:
                raise ModelError(f"template {self.name!r}: {{{repeated[0]}}} stands twice in a layout; an item is shown once")
            if ("content" in found) == ("text" in found and "media" in found):
                raise ModelError(f"template {self.name!r}: a layout needs either {{content}} or both {{media}} and {{text}}")
        if "{instruction}" not in self.with_instruction:
            raise ModelError(f"template {self.name!r}: with_instruction has no {{instruction}}, so instructions would have no effect")
        if self.default_instruction and "{instruction}" not in self.without_instruction:
            raise ModelError(f"template {self.name!r}: default_instruction has no effect, since without_instruction has no {{instruction}}")
        if self.suffix and "{suffix}" not in self.with_instruction + self.without_instruction:
            raise ModelError(f"template {self.name!r}: suffix has no effect, since no layout has {{suffix}}")

    @property
    def hash(self) -> str:
        """Twelve hex digits over everything that changes a rendering; the name does not."""
        return hash_of(self)

    def suffix_of(self, modality: str, instructed: bool) -> str:
        """What `{suffix}` becomes for an item of this modality, with or without an instruction."""
        plain = self.suffix.get(modality, "")
        return self.suffix.get(f"{modality} with instruction", plain) if instructed else plain

    def save(self, folder: Path) -> None:
        """Write `template.json` into a model folder."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")

    @classmethod
    def load(cls, path: Path) -> Template:
        """Read `template.json`. Raises `ModelError` when it is not a template."""
        try:
            template = cls(**json.loads(path.read_text("utf-8")))
            if not all(isinstance(text, str) for text in (template.name, template.default_instruction, *template.suffix.values())):
                raise TypeError("name, default_instruction and the suffixes must be texts")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path}: not a template file ({error})") from error
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        return template


def hash_of(template: Any, without: Collection[str] = ()) -> str:
    """Twelve hex digits over the fields of a template, a dataclass; its name does not count, nor do the fields in `without`."""
    data = {key: value for key, value in asdict(template).items() if key != "name" and key not in without}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def split_layout(layout: str) -> list[tuple[str, str]]:
    """Cut a layout into `("literal", text)` and `(placeholder, "")` pieces, in order."""
    pieces: list[tuple[str, str]] = []
    for index, piece in enumerate(_PLACEHOLDER.split(layout)):
        if index % 2:
            pieces.append((piece, ""))
        elif piece:
            pieces.append(("literal", piece))
    return pieces


CHAT = Template(
    name="chat",
    # Qwen3-VL-Embedding's convention: the instruction is the system turn. The whole turn stays out of the mean.
    with_instruction="{skip}<|im_start|>system\n{instruction}<|im_end|>{/skip}\n<|im_start|>user\n{content}<|im_end|>\n",
    without_instruction="{skip}<|im_start|>system\n{instruction}<|im_end|>{/skip}\n<|im_start|>user\n{content}<|im_end|>\n",
    default_instruction="Represent the user's input.",
)
"""Default for new chat backbones."""

PLAIN = Template(name="plain", with_instruction="{skip}{instruction} {/skip}{content}", without_instruction="{content}")
"""For backbones without a chat format, text-only ones included."""


MM_EMBED = Template(
    name="mm-embed",
    with_instruction="{skip}{bos}Instruct: {instruction}\nQuery: {/skip}{media}\n{text}{eos}",
    without_instruction="{bos}{media}\n{text}{eos}",
)
"""MM-Embed's format (spec/mm-embed-and-mbeir.md 1.3), the default for LLaVA-NeXT backbones. What stands before a query's content stays
out of the mean. A query without an instruction is written as a candidate is; the original leaves "Query: " before it."""

MM_EMBED_PUBLISHED = Template(
    name="mm-embed-published",
    with_instruction="{skip}{bos}Instruct: {instruction}\n{/skip}Query: {media}\n{text}{eos}",
    without_instruction=MM_EMBED.without_instruction,
)
"""As the released MM-Embed weights are used: their code counts the tokens up to "Query: " (those of the instruction, and the two that
its tokenizer puts around it), so "Query: " itself is averaged."""


def umarvel(one_word: bool = False, generation_prompt: bool = False) -> Template:
    """The template of the published U-MARVEL weights (spec/umarvel.md 1.1).

    Args:
        one_word: end the user turn with "Summarize above ... in one word: ", as LamRA does; the paper's finding is to drop it.
        generation_prompt: append the second, empty assistant turn that the original evaluation adds, and averages, by accident.
            The published numbers were made with it; new models do without.
    """
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{media}"
    end = "{suffix}<|im_end|>\n<|im_start|>assistant\n<emb>.<|im_end|>\n" + ("<|im_start|>assistant\n" if generation_prompt else "")
    seen = {"text": "sentence", "image": "image", "image,text": "image and sentence", "video": "video", "video,text": "video and sentence"}
    return Template(
        name="umarvel" + ("-one-word" if one_word else "") + ("-generation-prompt" if generation_prompt else ""),
        with_instruction=start + "{skip}<instruction_start>{instruction}<instruction_end>{/skip} {text}" + end,
        without_instruction=start + "{text}" + end,
        suffix={kind: f"\nSummarize above {words} in one word: " for kind, words in seen.items()} if one_word else {},
    )


BUILT_IN = {
    template.name: template
    for template in (
        CHAT,
        PLAIN,
        MM_EMBED,
        MM_EMBED_PUBLISHED,
        *(umarvel(one_word, prompt) for one_word in (False, True) for prompt in (False, True)),
    )
}
"""Templates that a recipe or `Embedder.load` can name."""


def resolve(template: str | Path | Template) -> Template:
    """A built-in by name, a template file by `Path`, or the template itself."""
    if isinstance(template, Template):
        return template
    if isinstance(template, Path):
        return Template.load(template)
    if template not in BUILT_IN:
        raise ModelError(f"unknown template {template!r}; built in are {', '.join(sorted(BUILT_IN))}; a file is given as a Path")
    return BUILT_IN[template]
