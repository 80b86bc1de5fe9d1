"""The command line: finds the function that was asked for, has its options read off its signature, tells the result."""

from __future__ import annotations

import inspect
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from rich.console import Console, Group

from tacit import __version__, checking, commands, comparing, training
from tacit.datasets import VERBS
from tacit.info import Told, Unknown, cards, info, listed, recipes

HELP = """\
usage: tacit COMMAND [OPTIONS]

Learns to act from recordings that carry no action labels.

[bold]The whole path at once[/]
  demo       record, learn, act and compare in a real environment, in minutes

[bold]Your own recordings[/]
  data       import, check, repair, curate and look at them: tacit data --help

[bold]Step by step[/]
  collect    record episodes of an environment into a dataset folder
  train      train latent actions, or a policy, by a recipe
  label      write down the latent actions that a model finds in a dataset
  evaluate   let a policy act, or judge latent actions on held-out episodes
  check      is this latent action model any good? ten numbers and a verdict
  compare    recipes x data x seeds: probes, acting and cost in one table

[bold]What is here[/]
  info       versions, device, threads and extras, to paste into a report
  recipes    the recipes and their knobs
  parts      what recipes are made of, and how to spell it

[bold]From video to a policy, with 64 labels[/] (pip install "tacit\\[control]")
  tacit collect control/point_mass out/video --frames 20000 --size 32 \\
    --demonstrator expert play --noise 1.4 --options repeat=10 horizon=50
  tacit train tacit --data out/video --out out/latents --labels 0
  tacit train follow out/latents --data out/video --out out/policy \\
    --source expert --labels 64
  tacit evaluate out/policy --env out/video

[bold]With every command[/]
  --help       what it does and what it takes, with examples
  --json       the result as JSON on the standard output, and nothing else there
  --traceback  where an error came from

Exit codes: 0 done, 1 failed, 2 asked for what there is not, 130 interrupted
(the same command goes on from there); `tacit data check` has its own.
"""
DATA = """\
usage: tacit data VERB [OPTIONS]

Recordings of any common format: in, checked, mended, curated, fast.

[bold]In and out[/]
  import     bring recordings of any known format into a dataset folder
  export     write a dataset for tools that read another format
  merge      put datasets together without decoding a frame

[bold]Before you learn from them[/]
  check      PASS, WARN or FAIL a line: damage, cuts, stills, twins, labels
  stats      how much there is, and the range of every number
  view       a page of moving clips
  repair     save what is whole of a broken dataset
  curate     drop, cut or choose episodes, and tell what went and why

[bold]Ready for training[/]
  split      assign episodes to training and validation, for good
  prepare    decode once, at training size

[bold]From a folder of videos to a model[/]
  tacit data import videos/ out/data --size 64 --fps 10
  tacit data check out/data --page out/check.html
  tacit train tacit --data out/data --out out/latents

`tacit data VERB --help` tells what a verb takes. Known formats: LeRobotDataset
v3.0 and v2.1, folders of videos or of pictures, npz, robomimic, Minari, zarr of
Diffusion Policy, OGBench, screen recordings with an event log.
"""
FLAGS = ("--json", "--traceback")
CHECK, UNCHECKED = ["data", "check"], 3  # whose 1 and 2 say what was found
FORESEEN = (ValueError, OSError, ImportError, ArithmeticError)  # errors that say what to do


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and answer with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        sys.argv[0] = "tacit"  # what runs and reports remember as the command, whichever way it was started
        for stream in (sys.stdout, sys.stderr):  # the name of a file may be no text
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    words, plain = [word for word in given if word not in FLAGS], "--json" in given
    try:
        with redirect_stdout(sys.stderr) if plain else nullcontext():  # a machine reads the result and nothing else
            told = _done(words)
        if os.environ.get("RANK", "0") == "0":  # one process of a torchrun speaks for all
            _show(told, plain=plain)
        return told.code
    except SystemExit as over:  # tyro's: 0 after --help, 2 where it could not understand
        code = over.code if isinstance(over.code, int) else int(over.code is not None)
        return UNCHECKED if code and words[:2] == CHECK else code
    except KeyboardInterrupt as stop:
        print(str(stop) or "Interrupted. The same command goes on, or begins anew.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `tacit recipes | head`: nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if "--traceback" in given:
            traceback.print_exc()
        name = words[0] if words and words[0] in COMMANDS else ""
        print(f"tacit {name}".strip() + f": {_plainly(error)}", file=sys.stderr)
        if words[:2] == CHECK:
            return UNCHECKED
        absent = isinstance(error, FileNotFoundError) and error.errno is None  # what we looked for ourselves
        return 2 if absent or isinstance(error, Unknown) else 1


def _done(words: list[str]) -> Told:
    """Find the command, have tyro read its options off its signature, and do it."""
    first = words[0] if words else ""
    if first in ("", "-h", "--help", "help"):
        raise _taught(HELP, asked=bool(first))
    if first == "--version":
        return Told({"tacit": __version__}, f"tacit {__version__}")
    if first not in COMMANDS:
        raise Unknown.of("command", first, known=COMMANDS)
    if first in ("data", "train", "compare", "demo", "parts"):
        return COMMANDS[first](words[1:])
    return read(COMMANDS[first], words[1:], name=first)


def _data(words: list[str]) -> Told:
    """Every verb is a command of its own."""
    first = words[0] if words else ""
    if first in ("", "-h", "--help"):
        raise _taught(DATA, asked=bool(first))
    if first not in VERBS:
        raise Unknown.of("verb of tacit data", first, known=VERBS)
    return read(VERBS[first], words[1:], name=f"data {first}")


def _train(words: list[str]) -> Told:
    """Every recipe is a command of its own, with its function's arguments as options."""
    first = words[0] if words else ""
    if first in ("", "-h", "--help"):
        usage = "usage: tacit train RECIPE --data D --out O [OPTIONS]"
        more = "tacit train RECIPE --help tells its card and its knobs."
        raise _taught(Group(usage, listed(cards()), more), asked=bool(first))
    form, told, run = training.trainer(first)
    return run(read(form, words[1:], name=f"train {first}", description=told))


def _compare(words: list[str]) -> Told:
    """Its options are those of a plan beside its own, so that they are made up where a plan is known."""
    return comparing.run(read(comparing.form(), words, name="compare", description=comparing.HELP))


def _demo(words: list[str]) -> Told:
    """The demo takes what its function takes, and shows its table itself."""
    from tacit.demo import demo

    told = read(demo, words, name="demo")
    return Told({key: value for key, value in told.items() if key != "figures"}, "")


def _parts(words: list[str]) -> Told:
    """Parts are of torch, which `tacit --help` does without."""
    from tacit.spelled import parts

    told: Told = read(parts, words, name="parts")
    return told


def read(asked: Callable[..., Any], words: Sequence[str], *, name: str, description: str | None = None) -> Any:
    """What ``asked`` returns when it is called with the options among ``words``."""
    import tyro

    says = description or (inspect.getdoc(asked) or "").partition("\nArgs:")[0].strip()
    return tyro.cli(asked, args=words, prog=f"tacit {name}", description=says, config=(tyro.conf.FlagCreatePairsOff,))


COMMANDS: dict[str, Callable[..., Told]] = {
    "demo": _demo,
    "data": _data,
    "collect": commands.collect,
    "train": _train,
    "label": commands.label,
    "evaluate": commands.evaluate,
    "check": checking.check,
    "compare": _compare,
    "info": info,
    "recipes": recipes,
    "parts": _parts,
}


def _taught(text: Any, *, asked: bool) -> SystemExit:
    """Show a page of help: to whoever asked for it, or as the answer to a command that is not whole."""
    Console(highlight=False, stderr=not asked).print(text, end="" if isinstance(text, str) else "\n")
    return SystemExit(0 if asked else 2)


def _plainly(error: Exception) -> str:
    """An error in one line; one that nobody foresaw also says where it arose."""
    if isinstance(error, OSError):
        from tacit.state import advised

        return " ".join(advised(error).split())
    text = " ".join(str(error).split())
    if isinstance(error, FORESEEN):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}: {last.line}"
    return f"{type(error).__name__} at {where} {text} (--traceback shows the way there)"


def _show(told: Told, *, plain: bool) -> None:
    if plain:
        print(json.dumps(told.facts, indent=1, allow_nan=False, default=str))
    elif told.words:
        console = Console(highlight=False, markup=False)  # a file may be called [b].mp4
        if not console.is_terminal:
            console = Console(highlight=False, markup=False, width=160)  # a pipe has no width to keep to
        console.print(told.words, soft_wrap=isinstance(told.words, str))
    sys.stdout.flush()  # here, where a reader that has gone can still be noticed
