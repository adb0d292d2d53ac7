"""`umr check`: do two engines give the same vectors?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umr.cli.eval import Dtype

if TYPE_CHECKING:
    from umr.engines.checking import Check


def check(
    model: Annotated[str, typer.Argument(help="Model folder or hub id, which engines of this process load.")],
    engine: Annotated[
        list[str],
        typer.Option(
            help="ours, sentence-transformers, or the address of a server, such as http://127.0.0.1:8000 or http://HOST:PORT#MODEL. "
            "May be repeated; the others are compared with the first, one alone with ours."
        ),
    ],
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Largest difference of a component that passes. Default: 0.0001, in half precision 0.01.")
    ] = None,
    min_cosine: Annotated[float | None, typer.Option(help="Least cosine that passes. Default: 0.9999, in half precision 0.999.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision of the engines of this process.")] = Dtype.float32,
    key_file: Annotated[Path | None, typer.Option(help="File whose first line is the servers' API key.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let sentence-transformers run code of others that the folder carries.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result, with every item, to this file, too.")] = None,
) -> None:
    """Embed texts, images and videos with several engines and compare the vectors; exit code 1 when they differ."""
    from json import dumps

    from umr.cli import console
    from umr.engines.checking import check as run
    from umr.files import write_text
    from umr.serving.settings import load_keys

    console.hush_transformers()
    key = None if key_file is None else load_keys(key_file, {})[0]
    done = run(model, engine, dtype=dtype.value, tolerance=tolerance, min_cosine=min_cosine, key=key, trust_remote_code=trust_remote_code)
    _show(done)
    if json is not None:
        write_text(json, dumps(done.content(), indent=1, sort_keys=True) + "\n")
    if not done.passes:
        raise typer.Exit(1)


def _show(done: Check) -> None:
    from umr.cli import console
    from umr.engines.comparing import TOP

    console.say(f"{done.model}: {len(done.rows)} items, compared with {done.reference}")
    rows = []
    for one in done.comparisons:
        figures = ["", "", "", ""]
        if one.differences:
            cosines = list(one.cosines.values())
            shared = "" if one.overlap is None else f"{one.overlap:.3f}"
            figures = [f"{min(cosines):.6f}", f"{sum(cosines) / len(cosines):.6f}", f"{one.differences[one.worst]:.1e}", shared]
        rows.append([one.engine, len(one.differences), *figures, "pass" if one.passes else "FAIL"])
    console.table(["engine", "compared", "cosine min", "mean", "largest difference", f"top-{TOP} overlap", "verdict"], rows)
    for name, left_out in [(done.reference, done.left_out), *((one.engine, one.left_out) for one in done.comparisons)]:
        for reason in dict.fromkeys(left_out.values()):
            console.say(f"{name} leaves out {'; '.join(row for row, why in left_out.items() if why == reason)}: {reason}")
    for one in done.comparisons:
        if one.problem:
            console.say(f"{one.engine}: {one.problem}")
        elif not one.passes:
            worst = sorted(one.differences, key=one.differences.__getitem__, reverse=True)[:3]
            allowed = f"{one.bounds.difference:g}, or a cosine is below {one.bounds.cosine:g}"
            console.say(f"{one.engine}: differs by more than {allowed}; worst are {'; '.join(worst)}")
        here, there = done.about.get("fingerprint"), one.about.get("fingerprint")
        if here and there and here != there:
            console.say(f"{one.engine}: serves another model, or in another precision: fingerprint {there}, {done.reference} {here}")
