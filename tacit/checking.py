"""``tacit check``: whether a latent action model is any good, in ten numbers, a word, and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional, arg

from tacit import info as here
from tacit.commands import Count, Folder
from tacit.info import Told

if TYPE_CHECKING:
    from tacit.data.episodes import Episodes
    from tacit.data.twins import Twins
    from tacit.evaluate.verdict.exam import Exam
    from tacit.evaluate.verdict.verdict import Verdict

Given = Annotated[str, arg(metavar="MODEL")]
Models = Annotated[tuple[str, ...], arg(metavar="MODEL ...")]
MOMENTS, WAYS = 128, 3  # of twins, where a simulator is at hand


def check(
    model: Positional[Given] = "",
    *,
    data: Annotated[Path, arg(metavar="D")],
    rank: Folder = None,
    out: Folder = None,
    siblings: Models = (),
    compare: Models = (),
    body: Folder = None,
    size: Count = None,
    most: int = 512,
    seed: int = 0,
    no_simulator: bool = False,
) -> Told:
    """Say whether a latent action model is any good: ten checks, a verdict, its evidence, and what to try next.

    Works on models of tacit and, through two functions in a file of yours, on any other. What the model was trained on
    is left out, or asked about apart. Labels, a recorded distractor and a simulator are used where they are at hand.

      tacit check out/latents --data out/video
      tacit check out/latents --data out/video --siblings out/seed-1 out/seed-2 --out out/verdict
      tacit check my_adapter.py:load --data out/video
      tacit check out/latents --data out/video --compare out/lapo out/laom
      tacit check --rank out/seeds --data out/video

    Args:
        model: the folder of a saved latent action model, or FILE.py:FUNCTION, a function that returns one
        data: a dataset; episodes that the model was trained on are told apart
        rank: a folder of saved models to be put in order by a score that wants no label
        out: a folder for verdict.json and verdict.html, or with --rank for ranking.json
        siblings: the same model trained with other seeds, to see whether they found the same
        compare: models to be put beside this one
        body: recordings of another body, whose latents are lent to the scenes of this one
        size: side of the pictures; the one that the model was built for, where it says
        most: transitions that are looked at
        seed: decides which
        no_simulator: do not open the environment that the data were recorded in
    """
    from tacit.evaluate.verdict.verdict import verdict_of

    if bool(model) == (rank is not None):
        given = f"{model} and --rank {rank}" if model else "neither"
        raise here.Unknown(f"tacit check was given {given}; wanted one model to judge, or --rank DIR to order many.")
    if most < 2:
        raise here.Unknown(f"--most was {most}; wanted at least 2 transitions, and some hundreds to tell anything.")
    console = Console(stderr=True)
    if rank is not None:
        return ranked(rank, data, out=out, size=size, most=most, seed=seed, console=console)
    whole: dict[str, Any] = {"size": size, "most": most, "seed": seed, "simulated": not no_simulator, "body": body}
    with console.status("reading") as status:
        found = []
        for name in (model, *compare):
            status.update(f"asking {name}")
            exam = exam_of(name, data, siblings=siblings if name == model else (), **whole)
            found.append((verdict_of(exam, title=f"{name} on {data}", source=str(data)), exam))
    return _answer(found, out)


def _answer(found: Sequence[tuple[Verdict, Exam]], out: Path | None) -> Told:
    """What came of one exam, or of several side by side; with ``out`` as a file of numbers and a page, too."""
    from tacit.evaluate.verdict import sheet

    verdicts = [verdict for verdict, _ in found]
    plain = [verdict.plain() for verdict in verdicts]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _written(out / "verdict.json", json.dumps(plain if len(plain) > 1 else plain[0], indent=1))
        _written(out / "verdict.html", sheet.beside(verdicts) if len(found) > 1 else sheet.sheet(*found[0]))
    page_at = [f"The page: {out / 'verdict.html'}"] if out is not None else []
    if len(verdicts) == 1:
        return Told(plain[0], Group(*verdicts, *page_at))
    titled = [part for verdict in verdicts for part in (Text(f"\n{verdict.title}", style="bold underline"), verdict)]
    return Told({"verdicts": plain}, Group(*titled, *page_at))


def ranked(
    home: Path, data: Path, *, out: Path | None, size: int | None, most: int, seed: int, console: Console
) -> Told:
    """Every latent action model under a folder on the same episodes, the best first by its score without labels."""
    from tacit import data as recordings
    from tacit.evaluate.holdout import prints
    from tacit.evaluate.verdict.exam import Exam
    from tacit.evaluate.verdict.score import score

    models, left = found(home)
    seen = frozenset().union(*(prints(one) for one in models.values()))
    frames = {here.frame(one) for one in models.values()} - {None}
    if len(frames) > 1:
        raise ValueError(f"The models under {home} want pictures of {sorted(map(str, frames))}; rank each size alone.")
    whole = recordings.cache(recordings.open(data), size=next(iter(frames), None) or (size and (size, size)))
    fresh, _ = parted(whole, seen, data=data)
    scores = {}
    with console.status("reading") as status:
        for name, one in models.items():
            status.update(f"asking {name}")
            try:
                scores[name] = score(Exam(one, fresh, most=most, seed=seed))
            except ValueError as error:
                left[name] = " ".join(str(error).split())
    order = sorted(scores, key=lambda name: -scores[name].value)
    told = [{"model": name, "score": scores[name].value, **scores[name].parts} for name in order]
    what = scores[order[0]].data if order else ""
    facts = {"format": "tacit.ranking/1", "models": told, "left_out": left, "data": what}
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _written(out / "ranking.json", json.dumps(facts, indent=1))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "score", *(next(iter(scores.values())).parts if scores else ())):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name in order:
        table.add_row(name, *(f"{value:.2f}" for value in (scores[name].value, *scores[name].parts.values())))
    words = [f"Left out: {name}: {why}" for name, why in left.items()]
    words += [f"The numbers: {out / 'ranking.json'}"] if out is not None else []
    return Told(facts, Group(table, *words, f"The score is the product of the shares beside it; {facts['data']}"))


def found(home: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The latent action models saved under a folder, by where they lie; and why some there cannot be opened."""
    from tacit.latents.model import LatentActions
    from tacit.part import CONFIG, Part

    if not home.is_dir():
        raise here.Unknown(f"{home} is not there; wanted a folder that holds folders of saved models.")
    models, left = dict[str, Any](), dict[str, str]()
    for config in sorted(home.rglob(CONFIG)):
        name = str(config.parent.relative_to(home))
        try:
            whole = Part.load(config.parent)
        except (ValueError, OSError) as error:  # one that was cut short takes none of the others with it
            left[name] = " ".join(str(error).split())
            continue
        if isinstance(whole, LatentActions):
            models[name] = whole.eval()
    if not models:
        why = "".join(f" {name}: {reason}" for name, reason in left.items())
        raise here.Unknown(
            f"{home} holds no saved latent action model; wanted a folder that holds folders of them.{why}"
        )
    return models, left


def exam_of(
    name: str,
    data: Path,
    *,
    siblings: Sequence[str],
    size: int | None,
    most: int,
    seed: int,
    simulated: bool,
    body: Path | None = None,
) -> Exam:
    """A model and all there is to ask it with: what it has not seen, what it has, labels, distractors, a simulator."""
    from tacit import data as recordings
    from tacit.data.collect import exogenous
    from tacit.evaluate.holdout import prints, span
    from tacit.evaluate.verdict.exam import Exam

    asked, others = opened(name), tuple(opened(other) for other in siblings)
    frame = here.frame(asked) if hasattr(asked, "modules") else None
    if frame and size and frame != (size, size):
        raise here.Unknown(f"--size was {size}, and {name} was built for pictures of {frame[0]} x {frame[1]}.")
    whole = recordings.cache(recordings.open(data), size=frame or (size and (size, size)))
    seen = frozenset().union(*(prints(one) for one in (asked, *others)))
    fresh, learnt = parted(whole, seen, data=data)
    try:
        tracks = tuple(exogenous(data, fresh))
    except (FileNotFoundError, ValueError):  # nothing in it is known to go on by itself
        tracks = None
    twins = _twins(data, fresh, past=span(asked) - 2, seed=seed) if simulated else None
    other = None
    if body is not None:
        other = recordings.cache(recordings.open(body), size=frame or (size and (size, size)))
        other, _ = parted(other, seen, data=body)
    return Exam(asked, fresh, learnt, others, twins, tracks, most, seed, other)


def opened(name: str) -> Any:
    """A saved model, or what a function of a user's file returns."""
    from tacit.evaluate.verdict.adapter import load
    from tacit.latents.model import LatentActions

    if ".py" in name:
        return load(name)
    return here.model(name, kind=LatentActions, inside="latents").eval()


def parted(whole: Episodes, seen: frozenset[str], *, data: Path) -> tuple[Episodes, Episodes | None]:
    """The episodes that a model has not seen, and those that it was trained on."""
    mask = [mark in seen for mark in whole.prints]
    fresh = whole.select([i for i, known in enumerate(mask) if not known])
    if not len(fresh):
        raise ValueError(
            f"All {len(whole)} episodes of {data} were used in training, so that nothing measured on them holds for "
            "new ones. Train with --held 0.2 and check with the same dataset, or give another."
        )
    return fresh, whole.select([i for i, known in enumerate(mask) if known]) if any(mask) else None


def _twins(data: Path, episodes: Episodes, *, past: int, seed: int) -> Twins | None:
    """Twin rollouts from the environment that the data were recorded in; none where it cannot be opened here."""
    from tacit.data.twins import twins

    env, options = here.recorded(str(data))
    if env == str(data) or not episodes.spec.pictures:
        return None
    try:
        ways = min(WAYS, episodes.spec.space.size) if episodes.spec.space and episodes.spec.space.discrete else WAYS
        size = episodes.spec.pictures[0]
        return twins(env, count=MOMENTS, ways=ways, past=past, seed=seed + 1, size=size, options=options)
    except (ImportError, ValueError, OSError) as error:
        Console(stderr=True).print(f"No twin rollouts: {' '.join(str(error).split())}", markup=False)
        return None


def _written(path: Path, text: str) -> None:
    from tacit.part import write

    write(path, lambda place: Path(place).write_text(text, encoding="utf-8"))
