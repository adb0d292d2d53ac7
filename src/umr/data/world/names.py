"""Made-up names of people, places and makers, spelt from syllables; the same for every seed, so that only their use varies."""

from __future__ import annotations

from functools import cache

from umr.data.world.random_stream import Stream

_CONSONANTS = "bdfgklmnprstvz"
_VOWELS = "aeiou"
_ENDINGS = ("n", "l", "r", "sh", "th", "")

PLACES = tuple(f"{start}{end}" for start in ("Dor", "Kel", "Mar", "Sun", "Tav", "Ost") for end in ("vik", "ham", "ford", "mere"))
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@cache
def people(n: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`n` given names and `n` family names, all different; at most 1,000 of each."""
    stream = Stream(1)
    words = [a + x + b + y for a in _CONSONANTS for x in _VOWELS for b in _CONSONANTS for y in _VOWELS]
    chosen = [word.capitalize() for word in stream.sample(words, 2000)]
    return tuple(chosen[:n]), tuple(word + _ENDINGS[i % len(_ENDINGS)] for i, word in enumerate(chosen[1000 : 1000 + n]))


@cache
def brands(n: int) -> tuple[str, ...]:
    """`n` words of three to five letters, at most 500; the first dozen look least alike."""
    first = ("mola", "zik", "terra", "bofu", "quip", "neda", "ginko", "havo", "wuxi", "sarl", "yett", "opal")
    stream = Stream(2)
    words = [a + x + b + y for a in _CONSONANTS for x in _VOWELS for b in _CONSONANTS for y in _VOWELS]
    return (first + tuple(stream.sample(words, 500)))[:n]
