"""What a training step of each recipe of latent actions costs, beside the plain cost of its own networks.

    python bench/recipes.py --out results/recipes.json       # every recipe, each in a process of its own
    python bench/recipes.py --recipes lapo tacit             # some of them
    python bench/recipes.py --alone tacit --profile          # one, and where its time goes

The plain cost is found by listening: in one step of `fit` the outermost modules called beneath the model are noted,
with what they were given and the gradients that came back to them. Played again, these calls forward and backward, a
clipped gradient and a step of the same optimiser are what the networks cost by themselves: no loss, no slow copies, no
books set down anew, no metrics, and what was computed twice from the same input is played once. Steps of `fit` and
replays take turns in one run; the claim is the ratio of their medians. Networks are the recipe's own, at 64 x 64
(70 x 70 where patches of 14 must fill it), the batch a small one, so that all of it fits a small machine. Peak memory
is that of a run by itself, with nothing noted and nothing played.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import logging
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from tacit.clip import Clip
from tacit.data import toys
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import bootstrap
from tacit.info import cards
from tacit.part import write
from tacit.rehearsal import peak
from tacit.train import Plan

BAR = 1.3
SIDE, ODD = 64, {"igor": 70}  # pixels; a side that its patches fill
WARM = 2  # steps before the one that is listened to
SECONDS, LEAST, MOST = 40.0, 7, 25  # a fit is timed for so long, by so many steps at least and at most


def leaves(value: Any) -> Iterator[Tensor]:
    """Every tensor inside what a module was given or gave."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Clip):
        yield from leaves(vars(value))
    elif isinstance(value, dict):
        yield from leaves(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from leaves(one)


def fresh(value: Any) -> Any:
    """The same, cut off from whatever made it; what wanted a gradient wants one still."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    if isinstance(value, Clip):
        return value.map(fresh)
    if isinstance(value, dict):
        return {key: fresh(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(fresh, value))
    return type(value)(map(fresh, value)) if isinstance(value, list | tuple) else value


@dataclasses.dataclass
class Call:
    """One call of a module in a step, and the gradients that its answers were sent back."""

    module: nn.Module
    given: Any
    named: dict[str, Any]
    graded: bool
    half: bool
    back: list[Tensor | None] = dataclasses.field(default_factory=list)

    def answered(self, output: Any) -> None:
        """Note what comes back to each tensor of the answer."""
        for place, tensor in enumerate(leaves(output)):
            self.back.append(None)
            if tensor.requires_grad:
                tensor.register_hook(lambda gradient, place=place: self.sent(place, gradient))

    def sent(self, place: int, gradient: Tensor) -> None:
        self.back[place] = gradient.detach()

    def again(self) -> Any:
        """The same call, on the same input."""
        half = torch.is_autocast_enabled("cpu")
        cast = nullcontext() if half == self.half else torch.autocast("cpu", torch.bfloat16, enabled=self.half)
        with torch.set_grad_enabled(self.graded), cast:
            return self.module(*fresh(self.given), **fresh(self.named))

    def same(self, other: Call) -> bool:
        """Whether this says what the other said: the same module, asked the same."""
        mine, theirs = ([*leaves((c.given, c.named))] for c in (self, other))
        if self.module is not other.module or self.graded != other.graded or len(mine) != len(theirs):
            return False
        return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


class Listening:
    """Notes the outermost modules that are called beneath the model while it lasts, and the optimiser that steps."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.model: Any = None
        self.optimiser: Any = None
        self.depth = 0

    def __enter__(self) -> Listening:
        self.hooks = [
            register_module_forward_pre_hook(self._asked),
            register_module_forward_hook(self._answered, with_kwargs=True),  # type: ignore[arg-type]
            register_optimizer_step_post_hook(self._stepped),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _asked(self, module: nn.Module, given: Any) -> None:
        if self.model is None:
            self.model = module
        self.depth += 1
        if self.depth == 2:
            half = torch.is_autocast_enabled("cpu")
            self.calls.append(Call(module, given, {}, torch.is_grad_enabled(), half))

    def _answered(self, module: nn.Module, given: Any, named: dict[str, Any], output: Any) -> None:
        self.depth -= 1
        if self.depth == 1:
            self.calls[-1].named = named
            self.calls[-1].answered(output)

    def _stepped(self, optimiser: Any, *_: Any) -> None:
        self.optimiser = optimiser


class Replay:
    """The networks of one step by themselves, as often as one likes."""

    def __init__(self, heard: Listening, plan: Plan) -> None:
        self.plan, self.optimiser, self.model = plan, heard.optimiser, heard.model
        self.calls: list[Call] = []
        self.repeated: list[str] = []  # what the step computed twice
        self.names = {module: name for name, module in heard.model.named_modules()}
        for call in heard.calls:
            if any(call.same(other) for other in self.calls):
                self.repeated.append(self.names.get(call.module, ""))
            else:
                self.calls.append(call)
        self.trained = [p for p in heard.model.parameters() if p.requires_grad]

    def __call__(self) -> None:
        answers, gradients = [], []
        half = self.plan.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            for call in self.calls:
                output = call.again()
                for tensor, gradient in zip(leaves(output), call.back, strict=True):
                    if gradient is not None:
                        answers.append(tensor)
                        gradients.append(gradient)
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(answers, gradients)
        nn.utils.clip_grad_norm_(self.trained, self.plan.clip or float("inf"))
        self.optimiser.step()


@dataclasses.dataclass
class Stage:
    """One `fit` of a recipe: the seconds of its steps, and of the replays between them."""

    steps: list[float] = dataclasses.field(default_factory=list)
    plain: list[float] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


class Beats:
    """Two batches of a recipe's own clips in turn; between the steps that are timed the networks run by themselves."""

    def __init__(self, clips: Clips, *, plan: Plan, count: int, profile: bool, stages: list[Stage]) -> None:
        self.clips, self.plan, self.count, self.stages = clips, plan, count, stages
        self.profile, self.prints = profile, clips.prints

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        kept = [self.clips.batch(self.clips.draw(step, batch, seed=seed)) for step in range(2)]
        stage = Stage()
        self.stages.append(stage)
        if not self.count:
            for step in range(WARM + 2):
                began = time.perf_counter()
                yield kept[step % 2]
                stage.steps.append(time.perf_counter() - began)
        yield from kept[:WARM]
        with Listening() as heard:
            yield kept[0]
        replay = Replay(heard, self.plan)
        stage.facts = {"calls": len(replay.calls), "repeated": replay.repeated}
        stage.facts |= {"parameters": sum(p.numel() for p in replay.model.parameters())}
        replay()
        yield kept[1]
        for step in range(self.count):
            began = time.perf_counter()
            yield kept[step % 2]
            stage.steps.append(time.perf_counter() - began)
            began = time.perf_counter()
            replay()
            stage.plain.append(time.perf_counter() - began)
        if self.profile:
            told(replay)
        del replay, heard  # a recipe of two fits wants the memory for the second
        yield kept[0]


class Heard:
    """Data whose clips come in `Beats`."""

    def __init__(self, data: Episodes, **how: Any) -> None:
        self._data, self._how = data, how

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def clips(self, length: int, **asked: Any) -> Beats:
        clips = self._data.clips(length, **asked)
        assert isinstance(clips, Clips)
        return Beats(clips, **self._how)


def stages(name: str, data: Episodes, *, batch: int, count: int, profile: bool = False) -> tuple[list[Stage], Plan]:
    """Every fit of a recipe, timed by so many steps; with 0 a run by itself, and nothing noted."""
    recipe: Callable[..., Any] = getattr(importlib.import_module(f"tacit.recipes.{name}"), name)
    found: list[Stage] = []
    plan: Plan = (recipe.__kwdefaults__ or {})["plan"]
    steps = WARM + count + 3 if count else WARM + 2
    plan = plan.replace(batch=batch, steps=steps, device="cpu", log_every=10**6, save_every=10**6)
    recipe(Heard(data, plan=plan, count=count, profile=profile, stages=found), None, plan=plan)
    gc.collect()  # what a fit leaves behind holds on to its model
    return found, plan


def measured(name: str, *, batch: int, profile: bool) -> list[dict[str, Any]]:
    """The rows of one recipe, one for each of its fits."""
    side = ODD.get(name, SIDE)
    data = toys.dots(Board(size=side), episodes=12, length=24, seed=0).episodes
    before = peak()
    alone, plan = stages(name, data, batch=batch, count=0)
    memory, rough = peak(), max(min(stage.steps[1:]) for stage in alone)
    count = int(np.clip(SECONDS / (2 * rough), LEAST, MOST))
    rows = []
    for number, stage in enumerate(stages(name, data, batch=batch, count=count, profile=profile)[0]):
        pairs = np.array([stage.steps, stage.plain]).T
        found = bootstrap(pairs, lambda x: float(np.median(x[:, 0]) / np.median(x[:, 1])), method="percentile")
        row = {"recipe": name, "fit": number, "of": len(alone), "side": side, "batch": batch}
        row |= {"precision": plan.precision, "ratio": found.value, "low": found.low, "high": found.high, "n": count}
        row |= {"step": statistics.median(stage.steps), "plain": statistics.median(stage.plain)}
        row |= {"memory_bytes": memory, "memory_before": before, **stage.facts}
        rows.append(row | {"steps": stage.steps, "plains": stage.plain})
    return rows


def told(replay: Replay) -> None:
    """Print what each of the networks takes forward, the dearest first."""
    taken: dict[str, list[float]] = {}
    for call in replay.calls:
        began = time.perf_counter()
        call.again()
        taken.setdefault(replay.names.get(call.module, "?"), []).append(1e3 * (time.perf_counter() - began))
    for name, each in sorted(taken.items(), key=lambda item: -sum(item[1])):
        print(f"  {sum(each):8.1f} ms forward in {len(each)} calls of {name}", file=sys.stderr)


def apart(name: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one recipe from a process of its own, or from the disk if it was measured before."""
    path = given.home / f"{name}-{given.batch}-{given.threads}.json"
    if path.exists() and not given.fresh:
        rows: list[dict[str, Any]] = json.loads(path.read_text())
        return rows
    words = [sys.executable, __file__, "--alone", name, "--batch", str(given.batch), "--threads", str(given.threads)]
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(ran.stdout)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, lambda file: Path(file).write_text(ran.stdout))
    return rows


def title(row: dict[str, Any]) -> str:
    """A recipe, and which of its fits where there are several."""
    return row["recipe"] + (f", fit {row['fit'] + 1}" if row["of"] > 1 else "")


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    said = f"{title(row)}: {1e3 * row['step']:.0f} ms a step, {1e3 * row['plain']:.0f} ms its networks alone: "
    said += f"{row['ratio']:.2f} times ({row['low']:.2f} to {row['high']:.2f}); {row['memory_bytes'] / 2**20:,.0f} MiB"
    return said + (f"; computed twice: {', '.join(row['repeated'])}" if row["repeated"] else "")


def drawn(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """The ratios with their intervals, and the bar; step and memory in words."""
    axes.figure.set_size_inches(8.5, 0.32 * len(rows) + 1.2)
    for place, row in enumerate(rows):
        axes.plot([row["low"], row["high"]], [place, place], color="grey", linewidth=1)
        axes.plot(row["ratio"], place, "o", color="#2a6f97" if row["ratio"] <= BAR else "#c1121f")
        words = f"{1e3 * row['step']:,.0f} ms, {row['memory_bytes'] / 2**20:,.0f} MiB"
        axes.annotate(words, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(BAR, color="black", linestyle=":", linewidth=1)
    axes.axvline(1.0, color="grey", linewidth=0.5)
    axes.set_yticks(range(len(rows)), [title(row) for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("step of fit / its networks alone")


def claimed(rows: list[dict[str, Any]], given: argparse.Namespace) -> None:
    """A file of results with every timing, and the figure of the ratios."""
    dear, most = [row for row in rows if row["ratio"] > BAR], max(rows, key=lambda row: row["ratio"])
    said = f"At batch {given.batch} and {given.threads} threads, {len(rows) - len(dear)} of the {len(rows)} fits of "
    said += f"{len({row['recipe'] for row in rows})} recipes take at most {BAR} times their own networks; the most "
    said += f"is {most['ratio']:.2f} ({title(most)}), the largest peak "
    said += f"{max(row['memory_bytes'] for row in rows) / 2**30:.1f} GiB."
    print(said)
    Claim(
        claim=said,
        command=shlex.join(["python", "bench/recipes.py", *sys.argv[1:]]),
        value={title(row): row["ratio"] for row in rows},
        interval={title(row): [row["low"], row["high"]] for row in rows},
        n=min(row["n"] for row in rows),
        seeds=(0,),
        bar=f"no recipe over {BAR} times the plain cost of its own networks, step time and peak memory on two cores",
        passed=not dear and not given.recipes,
        rows=rows,
        extra={"threads": given.threads},
    ).save(given.out, draw=lambda axes: drawn(rows, axes))


def main() -> int:
    known = [card.name for card in cards().values() if card.gives == "LatentActions"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=known, help="some of them; a claim needs all")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", choices=known, help="measure one in this process and print its rows as JSON")
    parser.add_argument("--profile", action="store_true", help="with --alone, print what each network takes")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--home", type=Path, default=Path("out/recipes"), help="where the rows of each recipe are kept")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    given = parser.parse_args()
    if given.alone:
        torch.set_num_threads(given.threads)
        logging.getLogger("tacit").setLevel(logging.ERROR)  # the replays are no clips that training waits for
        print(json.dumps(measured(given.alone, batch=given.batch, profile=given.profile)))
        return 0
    rows = []
    for name in given.recipes or known:
        for row in apart(name, given):
            rows.append(row)
            print(line(row), flush=True)
    if given.out:
        claimed(rows, given)
    return int(any(row["ratio"] > BAR for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
