"""The shapes in which requests hold items: a text, or an object with texts and media. Media are data URIs or addresses, nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

MOST_CHARACTERS = 200_000
"""Of a text: far beyond what any model reads, and little enough that tokenising it does not hold up others."""
MOST_IMAGES = 16
"""In one item."""


class Shape(BaseModel):
    """Base of all requests: a field that is not known has no effect, so it is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


ShortText = Annotated[str, Field(max_length=MOST_CHARACTERS)]
ImageSource = Annotated[
    str, Field(pattern=r"^(data:image/[a-z0-9.+-]+;base64,|https?://)", examples=["data:image/png;base64,iVBORw0KGgo="])
]
"""An image as a data URI; as an address where the server allows it."""
VideoSource = Annotated[str, Field(pattern=r"^data:video/[a-z0-9.+-]+;base64,", examples=["data:video/mp4;base64,AAAAIGZ0eXA="])]


class ItemInput(Shape):
    """One item: an image, a video, a text, or several of them together. They are shown to the model in this order."""

    text: ShortText | None = None
    image: ImageSource | Annotated[list[ImageSource], Field(min_length=1, max_length=MOST_IMAGES)] | None = None
    video: VideoSource | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> ItemInput:
        if not (self.text or self.image or self.video):
            raise ValueError("an item needs a text, an image or a video")
        return self


class TextPart(Shape):
    """A text in an ordered item."""

    type: Literal["text"]
    text: ShortText


class ImageUrl(Shape):
    """Where an image is."""

    url: ImageSource
    detail: Literal["auto", "low", "high"] | None = Field(None, description="Accepted for compatibility; the model's pixel budget decides.")


class ImagePart(Shape):
    """An image in an ordered item."""

    type: Literal["image_url"]
    image_url: ImageUrl


PartInput = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class OrderedInput(Shape):
    """One item whose parts are shown to the model in the order given (Cohere's and OpenAI's content parts)."""

    content: Annotated[list[PartInput], Field(min_length=1, max_length=2 * MOST_IMAGES)]


AnyInput: TypeAlias = str | ItemInput | OrderedInput
"""One item, in any of its shapes."""


def _kind(value: Any) -> str | None:
    """Which of the shapes a value has; the brackets tell it from the names of fields in the place of an error."""
    if isinstance(value, str):
        return "<text>"
    if isinstance(value, OrderedInput) or (isinstance(value, dict) and "content" in value):
        return "<content>"
    if isinstance(value, ItemInput | dict):
        return "<item>"
    return None


def _kind_or_list(value: Any) -> str | None:
    return "<list>" if isinstance(value, list) else _kind(value)


def _no_tokens(value: Any) -> Any:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, list):
        first = first[0] if first else None
    if isinstance(first, int) and not isinstance(first, bool):
        raise ValueError("arrays of token ids are not accepted, since they depend on a tokenizer; send the text")
    return value


_UNKNOWN: dict[str, Any] = {
    "custom_error_type": "input_kind",
    "custom_error_message": 'an input is a text, or an object such as {"text": ..., "image": "data:image/png;base64,..."}',
}
OneInput = Annotated[
    Annotated[ShortText, Tag("<text>")] | Annotated[ItemInput, Tag("<item>")] | Annotated[OrderedInput, Tag("<content>")],
    Discriminator(_kind, **_UNKNOWN),
]
"""Field of a request that holds one item."""
Inputs = Annotated[
    Annotated[ShortText, Tag("<text>")]
    | Annotated[ItemInput, Tag("<item>")]
    | Annotated[OrderedInput, Tag("<content>")]
    | Annotated[list[OneInput], Tag("<list>"), Field(min_length=1)],
    Discriminator(_kind_or_list, **_UNKNOWN),
    BeforeValidator(_no_tokens),
]
"""Field of a request that holds one item, or a list of them."""


def as_list(inputs: AnyInput | list[AnyInput]) -> list[AnyInput]:
    """Several inputs, be it one or a list."""
    return list(inputs) if isinstance(inputs, list) else [inputs]
