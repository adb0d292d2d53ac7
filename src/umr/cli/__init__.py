"""The command `umr`: one verb a file, each a thin call into the library.

Nothing heavy is imported here or at the top of a verb's file, so that `umr --help` answers at once. Whatever goes wrong ends
in one line on stderr and an exit code: 1 for a failure, 2 for a wrong command line, 130 for an interruption.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from umr import __version__
from umr.cli import (
    calibrate,
    check,
    check_data,
    compare,
    console,
    demo,
    embed,
    eval,
    export,
    import_,
    index,
    init,
    judgements,
    merge,
    mine,
    mteb,
    report,
    run,
    score,
    search,
    serve,
    study,
    suites,
    train,
    world,
)
from umr.cli.mistakes import usage_line, what_went_wrong

app = typer.Typer(
    name="umr",
    help="Universal multimodal retrieval: train, evaluate and use one embedding model for text, images and video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("world")(world.world)
app.command("init")(init.init)
app.command("train")(train.train)
app.command("run")(run.run)
app.command("study")(study.study)
app.command("serve")(serve.serve)
app.command("search")(search.search)
app.command("judgements")(judgements.judgements)
app.command("index")(index.index)
app.command("mine")(mine.mine)
app.command("score")(score.score)
app.command("embed")(embed.embed)
app.command("eval")(eval.evaluate)
app.command("suites")(suites.suites)
app.command("mteb")(mteb.mteb)
app.command("calibrate")(calibrate.calibrate)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("check-data")(check_data.check_data)
app.command("import")(import_.import_checkpoint)
app.command("export")(export.export)
app.command("check")(check.check)
app.command("merge")(merge.merge)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.say(f"umr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: the words after `umr`; default `sys.argv[1:]`.
    """
    # Read by torch's threads when they start: by default they wait for each other by spinning for milliseconds, which made a
    # training step of the demo ten times slower on a busy machine; a short spin halves that, and costs nothing on a quiet one.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    command: Any = typer.main.get_command(app)
    try:
        code = command.main(words, prog_name="umr", standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        line = usage_line(error)
        if line is not None:
            if line:
                console.fail(line)
            return 2
        if debug:
            raise
        console.fail(what_went_wrong(error))
        return 1
    if code == 130:  # typer, too, turns an interruption into this code
        console.fail("interrupted; what is on disk is whole, and the same command goes on from there")
    return int(code)
