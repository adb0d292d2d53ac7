"""`catalog`: products of a texture, colour, shape and number with the maker's name on a label (description <-> picture)."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from umr.data.world.book import Another, Book, World, others, round_robin
from umr.data.world.draw import Picture
from umr.data.world.names import brands
from umr.data.world.random_stream import Stream
from umr.data.world.registry import Registry
from umr.data.world.scene import Kind, alter_kind, draw_until, place, random_kind
from umr.data.world.settings import SPLITS, Split
from umr.data.world.truth import Claim, View, tag
from umr.data.world.wording import NUMBERS, kind_words

FAMILY = 6
"""A product and five that differ from it in texture, colour or shape, in number, or in maker."""


class Product(NamedTuple):
    """What a shop picture shows: `number` (1-4) things of a textured kind, and a maker."""

    kind: Kind
    number: int
    brand: str


def plan_catalog(world: World) -> None:
    """Plan `catalog_task0` and `catalog_task3`, which share their pictures."""
    book = world.book("catalog")
    registry = world.registry("products")
    for split in SPLITS:
        stream = book.stream(split)
        wanted = max(ceil(world.scale.room(name, split) / FAMILY) for name in ("catalog_task0", "catalog_task3"))
        families = [_family(stream, registry, world.scale.brands) for _ in range(wanted)]
        paths = [[book.draw(split, product_picture(stream, product)) for product in family] for family in families]
        pictures = [
            [_shown(book, split, product, path) for product, path in zip(*row, strict=True)] for row in zip(families, paths, strict=True)
        ]
        texts = [
            [_described(book, split, stream, product) for product in family]
            for family in families[: ceil(world.scale.room("catalog_task3", split) / FAMILY)]
        ]
        for f, m in round_robin(len(families), FAMILY, world.scale.queries("catalog_task0", split)):
            product, negatives = families[f][m], others(pictures[f], m)
            text = describe(stream, product)
            book.query("catalog_task0", split, text, None, [pictures[f][m]], negatives, claims=_claims(product))
        for f, m in round_robin(len(texts), FAMILY, world.scale.queries("catalog_task3", split)):
            product, negatives = families[f][m], others(texts[f], m)
            book.query("catalog_task3", split, None, paths[f][m], [texts[f][m]], negatives, view=_view(product))


def _shown(book: Book, split: Split, product: Product, path: str) -> str:
    def another(stream: Stream) -> Another:
        return Another(None, product_picture(stream, product))

    return book.candidate("catalog_task0", split, None, path, view=_view(product), another=another)


def _described(book: Book, split: Split, stream: Stream, product: Product) -> str:
    def another(stream: Stream) -> Another:
        return Another(describe(stream, product), None)

    return book.candidate("catalog_task3", split, describe(stream, product), None, claims=_claims(product), another=another)


def describe(stream: Stream, product: Product) -> str:
    """The product in words: number, texture, colour, shape and maker, each always named."""
    many, number = product.number > 1, NUMBERS[product.number]
    things = kind_words(stream, product.kind, plural=many)
    return stream.pick(
        (
            f"we sell {number} {things} by {product.brand}",
            f"here are {number} {things}, made by {product.brand}",
            f"from {product.brand}: {number} {things}",
            f"{'set' if many else 'pack'} of {number} {things}, brand {product.brand}",
        )
    )


def random_product(stream: Stream, n_brands: int) -> Product:
    """Any product."""
    return Product(random_kind(stream, textured=True), 1 + stream.below(4), stream.pick(brands(n_brands)))


def alter_product(stream: Stream, product: Product, n_brands: int) -> Product:
    """Change one attribute: half of the time texture, colour or shape, else the number or the maker."""
    if stream.chance(0.5):
        return product._replace(kind=alter_kind(stream, product.kind))
    if stream.chance(0.5):
        return product._replace(number=stream.other((1, 2, 3, 4), product.number))
    return product._replace(brand=stream.other(brands(n_brands), product.brand))


def _family(stream: Stream, registry: Registry, n_brands: int) -> list[Product]:
    def make() -> list[Product] | None:
        base = random_product(stream, n_brands)
        family = [base, *(alter_product(stream, base, n_brands) for _ in range(FAMILY - 1))]
        return family if registry.claim([(product,) for product in family]) else None

    return draw_until(make)


def product_picture(stream: Stream, product: Product) -> Picture:
    """The product in random cells over its label."""
    return Picture("catalog", place(stream, [product.kind] * product.number), product.brand)


def _view(product: Product) -> View:
    return {"things": [], "tags": {"product": product.kind.name, "count": str(product.number), "brand": product.brand}}


def _claims(product: Product) -> list[Claim]:
    return [tag(key, value) for key, value in _view(product)["tags"].items()]
