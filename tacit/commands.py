"""What the commands do: each asks a function elsewhere, and tells what came of it in values and in words."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from tacit import info as here
from tacit.info import Told

if TYPE_CHECKING:  # what needs torch is imported by the command that needs it: `tacit --help` is there at once
    from tacit.data.episodes import Episodes
    from tacit.evaluate import Report
    from tacit.latents.model import LatentActions

Engine = Literal["local", "ray"]  # as in tacit.data.scale
ENDS = ("random", "expert", "play")  # who acts without having been trained

Environment = Annotated[str, arg(metavar="ENV")]
Model = Annotated[str, arg(metavar="MODEL")]
Out = Annotated[Path, arg(metavar="OUT")]
Count = Annotated[int | None, arg(metavar="INT")]
Folder = Annotated[Path | None, arg(metavar="PATH")]
Name = Annotated[str | None, arg(metavar="ENV")]


def took(seconds: float) -> str:
    """A time in words."""
    from tacit.evaluate.report import duration

    return duration(seconds)


def sized(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def counted(data: Episodes) -> dict[str, Any]:
    """How much there is, as values."""
    return {"episodes": len(data), "frames": int(data.lengths.sum()), "labels": data.labelled}


def counts(data: Episodes) -> str:
    """How much there is, in words."""
    return ", ".join(f"{count:,} {kind[: -1 if count == 1 else None]}" for kind, count in counted(data).items())


def _options(given: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE words as values: numbers and truths as JSON has them, all else as text."""
    found: dict[str, Any] = {}
    for word in given:
        key, sign, value = word.partition("=")
        if not sign:
            raise here.Unknown(f"--options was given {word!r}; wanted KEY=VALUE, such as repeat=12.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def collect(
    env: Environment,
    out: Out,
    /,
    *,
    episodes: Count = None,
    frames: Count = None,
    demonstrator: tuple[str, ...] = ("expert",),
    noise: float = 0.0,
    labels: int | Literal["all", "none"] = "all",
    size: int = 64,
    seed: int = 0,
    workers: int = 2,
    options: tuple[str, ...] = (),
    dry_run: bool = False,
) -> Told:
    """Record episodes of an environment into a dataset folder (LeRobotDataset v3.0).

    Stopped or killed, the same command goes on where it was.

      tacit collect dots/plain out/dots --episodes 400 --size 16
      tacit collect control/point_mass out/point --frames 20000 --demonstrator expert play --labels none
      tacit collect babyai/GoToRedBall out/ball --options distract=sprites strength=2

    Args:
        env: one of tacit's environments (family/task), or the id of a Gymnasium environment
        out: the folder to record into
        episodes: how many episodes; 100 if neither this nor --frames is given
        frames: or how many frames, in whole episodes
        demonstrator: who acts, in turns: expert, play, or the folder of a saved policy
        noise: of the expert: its share of random actions, or their deviation
        labels: whose actions are kept: all, none, or those of the first so many episodes
        size: side of the recorded pictures, in pixels
        seed: decides every episode, whatever the number of workers
        workers: processes that record
        options: KEY=VALUE for the environment; distract and strength lay over it what moves by itself
        dry_run: play a few episodes, tell what all of it would take, write nothing
    """
    from tacit.data.collect import collect

    who = [w if w in ("expert", "play") else here.folder(w, also="expert or play") for w in demonstrator]
    asked: dict[str, Any] = {"demonstrator": who, "noise": noise, "labels": labels, "seed": seed, "size": size}
    asked |= {"env": here.environment(env), "options": _options(options)}
    if episodes is frames is None:
        episodes = 100
    if dry_run:
        return _tried(asked, episodes=episodes, frames=frames, workers=workers)
    began = time.perf_counter()
    data = collect(out=out, episodes=episodes, frames=frames, workers=workers, **asked)
    seconds, won = time.perf_counter() - began, [s for s in data.successes if s is not None]
    share = sum(won) / len(won) if won else None
    done = "" if share is None else f", {100 * share:.0f} % with success"
    told = f"{out}: {counts(data)}{done}, in {took(seconds)}."
    facts = {"env": env, "out": out, "dry_run": False, **counted(data), "success": share, "seconds": seconds}
    return Told(facts, f"{told}\nNext: tacit train tacit --data {out} --out out/latents")


def _tried(asked: dict[str, Any], *, episodes: int | None, frames: int | None, workers: int) -> Told:
    """What recording would take, from a few episodes that are thrown away."""
    from tacit.data.collect import collect

    taken, lengths = [], []
    for count in (1, 1, 4):  # the first warms up, the second says what opening costs
        began = time.perf_counter()
        lengths.append(int(collect(episodes=count, workers=1, **asked).lengths.sum()))
        taken.append(time.perf_counter() - began)
    rate = workers * (lengths[2] - lengths[1]) / max(taken[2] - taken[1], 1e-3)
    wanted = frames or lengths[2] * (episodes or 0) // 4
    seconds, disk = wanted / rate, wanted * asked["size"] ** 2 * 3
    facts = {"env": asked["env"], "dry_run": True, "frames": wanted, "seconds": seconds, "disk_bytes": disk}
    told = f"about {wanted:,} frames in {took(seconds)}, {rate:,.0f} a second; at most {sized(disk)}"
    return Told(facts, f"{asked['env']}: {told}. Nothing was written.")


def label(
    model: Model,
    /,
    *,
    data: Path,
    out: Out,
    budget: Count = None,
    workers: int = 1,
    engine: Engine = "local",
    dry_run: bool = False,
) -> Told:
    """Infer the latent action of every transition of a dataset, and write them as a dataset that carries them.

    The columns are latent_action, and latent_code where the model's latents are discrete.

      tacit label out/latents --data out/dots --out out/labelled

    Args:
        model: the folder of a latent action model, as `tacit train` left it
        data: the dataset folder
        out: the folder to write
        budget: how many slots are kept of a nested latent; 0: as few as the data's labels find enough
        workers: processes that infer, of one thread each; 1: this one, with all its threads
        engine: this machine's processes, or a Ray cluster's
        dry_run: infer one episode, tell what all of them would take, write nothing
    """
    from tacit.data import cache
    from tacit.data import open as opened
    from tacit.latents.model import LatentActions, infer
    from tacit.latents.model import label as labelled
    from tacit.latents.shorten import shortened
    from tacit.rehearsal import few

    latents = here.model(model, kind=LatentActions, inside="latents")
    frame, episodes = here.frame(latents), opened(data)
    if budget:  # one that the labels choose waits for the pictures, which a dry run does not write
        latents = shortened(latents, episodes, budget=budget)
    facts: dict[str, Any] = {"model": model, "out": out, "dry_run": dry_run, "dim": latents.dim, **counted(episodes)}
    if dry_run:
        some = few(episodes, frame=frame, frames=1)
        began = time.perf_counter()
        _, codes = infer(latents, some, number=0)
        seconds = (time.perf_counter() - began) / int(some.lengths[0]) * int(episodes.lengths.sum())
        told = f"{latents.dim} numbers" + ("" if codes is None else f" and {codes.shape[1]} codes")
        told = f"{counts(episodes)}: {told} a transition, in about {took(seconds)}. Nothing was written."
        return Told(facts | {"seconds": seconds}, told)
    began = time.perf_counter()
    small = cache(episodes, size=frame, workers=max(2, workers), engine=engine)
    latents = shortened(latents, small, budget=0) if budget == 0 else latents
    written = labelled(latents, small, out=out, workers=workers, engine=engine)
    seconds = time.perf_counter() - began
    told = f"{out}: {counts(written)}, a latent of {latents.dim} numbers a transition, in {took(seconds)}."
    return Told(facts | {"seconds": seconds}, told)


def evaluate(
    model: Model,
    /,
    *,
    env: Name = None,
    data: Folder = None,
    out: Folder = None,
    episodes: int = 100,
    seed: int = 0,
    size: Count = None,
    options: tuple[str, ...] = (),
    text: str = "",
    workers: int = 1,
    held: float = 0.0,
    most: int = 4096,
    dry_run: bool = False,
) -> Told:
    """Let a policy act in an environment (--env), or judge latent actions on held-out episodes (--data).

    Every number comes with its 95 % interval. Episodes that the model was trained on are refused.

      tacit evaluate out/policy --env control/point_mass --episodes 200
      tacit evaluate random --env out/video
      tacit evaluate out/latents --data out/dots --held 0.1 --out out/judged

    Args:
        model: the folder of a saved policy or latent action model; or random, expert or play
        env: where the policy acts: a name, or a folder that `tacit collect` recorded, for an environment like its own
        data: the dataset on which latent actions are judged
        out: a folder for report.json and report.html, with pictures
        episodes: how many episodes the policy plays
        seed: decides the episodes, or the transitions that are judged
        size: side of the pictures; the one that the model was built for, where it says
        options: KEY=VALUE for the environment
        text: what a policy that listens is asked to do, in place of what the environment says
        workers: processes that play
        held: judge on this share of the dataset: what `tacit train --held` kept back
        most: transitions that are judged
        dry_run: one episode, or few transitions, to see that it works; writes nothing
    """
    place = None if model in ENDS else here.folder(model, also=", ".join(ENDS))
    from tacit.latents.model import LatentActions
    from tacit.policies import Policy

    found = place and here.model(place, kind=(Policy, LatentActions))
    began = time.perf_counter()
    if isinstance(found, LatentActions):
        if data is None or env is not None or text:
            raise here.Unknown(f"{model} holds latent actions, which do not act: give --data D alone to judge them on.")
        report = _judged(found, data, held=held, most=most, seed=seed, dry_run=dry_run)
    else:
        if env is None or data is not None:
            raise here.Unknown(f"{model} is a policy: give --env E for it to act in, and no --data.")
        many = {"episodes": 1 if dry_run else episodes, "seed": seed, "workers": workers}
        report = _acted(found or model, env, size=size, options=_options(options), text=text, **many)
    report.title, report.seconds = f"{model} on {env or data}", time.perf_counter() - began
    if out is not None and not dry_run:
        report.save(out)
    return Told({k: v for k, v in report.plain().items() if k != "figures"}, report)


def _judged(latents: LatentActions, data: Path, *, held: float, most: int, seed: int, dry_run: bool) -> Report:
    """Latent actions on episodes that they were not trained on."""
    from tacit.data import cache
    from tacit.data import open as opened
    from tacit.evaluate.holdout import prints
    from tacit.evaluate.latents import report
    from tacit.rehearsal import few

    frame, whole = here.frame(latents), opened(data)
    whole = whole if dry_run else cache(whole, size=frame)
    episodes = whole.split(held)[1] if held else whole
    shared = episodes.overlap(prints(latents))
    if shared:
        raise ValueError(
            f"{shared} of these {len(episodes)} episodes were used in training, so a number measured on them says "
            "nothing of new ones. Train with --held 0.1 and evaluate with --held 0.1, or give other episodes."
        )
    episodes = few(episodes, frame=frame) if dry_run else episodes
    return report(latents, episodes, most=64 if dry_run else most, seed=seed)


def _acted(who: Any, env: str, *, size: int | None, options: dict[str, Any], text: str, **many: int) -> Report:
    """A policy, or one end of the scale, in an environment."""
    from tacit.data.collect import opened
    from tacit.evaluate import Report
    from tacit.evaluate.page import films
    from tacit.evaluate.rollout import Chance, rollout, summary

    if text and getattr(who, "language", None) is None:
        raise here.Unknown("This policy listens to no --text: leave it out, or train one that does, as groot2 can.")
    name, recorded = here.recorded(env)
    built = None if who in ENDS else here.frame(who)
    side = size or (built[0] if built else 64)
    begin = partial(opened, here.environment(name), size=side, options=recorded | options)
    world = begin()
    actor: Any = {"random": Chance(), "expert": world.expert(), "play": world.play()}[who] if who in ENDS else who
    found = rollout(actor, begin, record=3, text=text, **many)
    told = {"env": name, "seed": found.seed, **({"text": text} if text else {})}
    report = Report("", rows=[{**told, **found.row()}], seeds=(found.seed,))
    films_ = {f"episode {number}": film for number, film in enumerate(found.films)}
    report.figures = {"acting": films(films_, fps=world.fps)}
    world.close()
    return report.add(*summary(found, world))
