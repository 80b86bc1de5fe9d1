"""`tacit train`: a recipe's own arguments as options, and what it is trained on."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from rich.box import SIMPLE_HEAD
from rich.table import Table
from tyro.conf import Positional, arg

from tacit import info as here
from tacit.commands import Count, counted, counts, sized, took
from tacit.info import Told

Made = Annotated[str | None, arg(metavar="PART")]
Parts = Annotated[tuple[str, ...], arg(metavar="PART ...")]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Which data, how much of it may be seen, and where the result goes."""

    data: Annotated[
        Path, arg(help="a dataset folder: of `tacit collect` or `tacit data import`, or any LeRobotDataset")
    ]
    out: Annotated[Path, arg(metavar="OUT", help="the folder of the result; a half-finished one is gone on with")]
    size: Annotated[Count, arg(help="side of the pictures; they are decoded once, and kept beside the data")] = None
    labels: Annotated[Count, arg(help="hide all but so many action labels, drawn by --plan.seed in stretches")] = None
    part: Annotated[str, arg(help="only the episodes that `tacit data split` assigned to this part: train")] = ""
    held: Annotated[float, arg(help="keep this share of the episodes back, for `tacit evaluate --held`")] = 0.0
    stream: Annotated[bool, arg(help="decode as it trains, for recordings whose decoded frames fit no disk")] = False
    dry_run: Annotated[bool, arg(help="take three steps, tell sizes, memory, disk and time; write nothing")] = False


def trainer(name: str) -> tuple[type[Any], str, Callable[[Any], Told]]:
    """What a recipe asks for, what its help says, and what to do with the answers."""
    from tacit.spelled import given

    recipe = here.recipe(name)
    card, kinds = here.cards()[name], here.parts(recipe)
    form = _form(recipe, card)
    inputs = "".join(f" {knob.upper()}" for knob, default in card.knobs.items() if not default)

    def run(asked: Any) -> Told:
        mine = {field.metadata["knob"]: field.name for field in dataclasses.fields(form) if "knob" in field.metadata}
        knobs = {knob: getattr(asked, option) for knob, option in mine.items()}
        _spared(asked.out, [knobs[knob] for knob in kinds])
        for knob in kinds:
            if knobs[knob] is not None:
                knobs[knob] = given(knobs[knob], kind=kinds[knob], inside=knob)
        return _trained(name, partial(recipe, **knobs), asked)

    example = f"  tacit train {name}{inputs} --data out/dots --out out/{name} --dry-run"
    return form, f"{card.page}\n\n{example}", run


def _form(recipe: Callable[..., Any], card: here.Card) -> type[Any]:
    """What `tacit train` asks for: ``Run``, and the recipe's own knobs: parts are spelled, or lie in folders."""
    from tacit.train import Plan

    hints, kinds = get_type_hints(recipe), here.parts(recipe)
    fields: list[Any] = []
    for knob, parameter in inspect.signature(recipe).parameters.items():
        if knob in ("data", "out") or (knob != "plan" and Plan in get_args(hints[knob])):
            continue  # a second plan is for Python
        wanted, told = parameter.default is parameter.empty, card.words[knob] or None
        several = get_origin(hints[knob]) is tuple
        kind: Any = hints[knob] if knob not in kinds else Positional[Path] if wanted else Parts if several else Made
        if knob != "plan":  # which has options of its own, and words for each
            kind = Annotated[kind, arg(help=told, metavar=knob.upper()) if wanted else arg(help=told)]
        option = f"{recipe.__name__}_{knob}" if knob in Run.__dataclass_fields__ else knob  # `size` is the pictures'
        about: dict[str, Any] = {} if knob == "plan" else {"metadata": {"knob": knob}}
        about |= {} if wanted else {"default": parameter.default}
        fields.append((option, kind, dataclasses.field(**about)))
    return dataclasses.make_dataclass(recipe.__name__, fields, bases=(Run,), frozen=True, kw_only=True)


def _spared(out: Path, inputs: Sequence[Any]) -> None:
    """Refuse to train over recordings, over a model that is trained from, and over what no training left there."""
    given = [value for value in inputs if isinstance(value, str | Path) and Path(value).exists()]
    what = (
        "recordings" if (out / "meta" / "info.json").exists()
        else "a model that is given here" if out.exists() and any(out.samefile(value) for value in given)
        else "a config.json that no training wrote" if (out / "config.json").exists() and not any(out.rglob("run.json"))
        else ""
    )  # fmt: skip
    if what:
        raise here.Unknown(f"--out {out} holds {what}, which would be written over; give another folder.")


def _trained(name: str, recipe: Callable[..., Any], asked: Any) -> Told:
    """Train on the data that was asked for, or rehearse it."""
    from tacit.data import Damaged, Episodes, View, cache
    from tacit.data import open as opened
    from tacit.data.view import Viewed
    from tacit.hints import onward
    from tacit.rehearsal import few, forewarned, rehearse
    from tacit.watch import Health, watching

    if asked.labels is not None and asked.labels < 0:
        raise here.Unknown(f"--labels was given {asked.labels}; wanted how many labels may be seen, from 0.")
    whole = opened(asked.data)
    frame = here.sides(asked.size, whole.spec.frame, name=asked.data)  # a recipe that wants pictures says so itself
    if asked.stream:
        if frame is None:
            raise here.Unknown(f"{asked.data} holds no pictures, and --stream is for decoding them; leave it out.")
        # As a cache has them: what is trained on a stream is evaluated and labelled on a cache.
        whole = Episodes(Viewed(whole.reader, View(size=frame, fit="stretch"))).streamed()
    elif not asked.dry_run:
        try:
            whole = cache(whole, size=frame)
        except Damaged as error:
            raise Damaged(f"{error} To leave out what is damaged: tacit data import {asked.data} OUT") from error
    whole = whole.part(asked.part) if asked.part else whole
    data = whole.split(asked.held)[0] if asked.held else whole
    warned = forewarned(recipe, data)  # by all labels there are, those that are hidden next too
    data = data if asked.labels is None else data.keep_labels(asked.labels, seed=asked.plan.seed)
    facts = {"recipe": name, "out": asked.out, "dry_run": asked.dry_run, **counted(data), **warned}
    if asked.dry_run:
        found = rehearse(partial(recipe, out=None), few(data, frame=frame), plan=asked.plan)
        if frame and not asked.stream:
            found["disk_bytes"] += int(whole.lengths.sum()) * frame[0] * frame[1] * 3  # the decoded pictures
        return Told(facts | found, _rehearsed(name, found, counts(data)))
    began = time.perf_counter()
    looks = [Health(whole.split(asked.held)[1])] if asked.held and not asked.stream else []
    with watching(*looks):
        model = recipe(data=data, out=asked.out, plan=asked.plan)
    seconds, count = time.perf_counter() - began, sum(p.numel() for p in model.parameters())
    losses, kind = here.losses(asked.out), type(model).__name__
    facts |= {"model": kind, "parameters": count, "losses": losses, "seconds": seconds}
    told = f"{asked.out}: a {kind} of {count:,} parameters from {counts(data)}, in {took(seconds)}"
    told += "".join(f"; loss of {stage} {value:.4g}" for stage, value in losses.items())
    then = onward(model, asked.out, data=asked.data, seen=data, size=asked.size, held=asked.held)
    return Told(facts, f"{told}.\n{then}")


def _rehearsed(name: str, found: dict[str, Any], counts: str) -> Table:
    heads = ("model", "parameters", "a batch", "a step", f"{found['steps']:,} steps")
    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
    for stage in found["stages"]:
        batch = ", ".join(f"{k} {' x '.join(map(str, shape))}" for k, shape in stage["clip"].items())
        step, all_ = took(stage["seconds_per_step"]), took(stage["seconds"])
        table.add_row(stage["model"], f"{stage['parameters']:,}", batch, step, all_)
    cost = f"{took(found['seconds'])}, {sized(found['memory_bytes'])} of memory, {sized(found['disk_bytes'])} of disk"
    table.caption = f"{name} on {counts}: {cost}. Nothing was written."
    return table
