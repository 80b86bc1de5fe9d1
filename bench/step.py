"""One training step of `lapo` at the reference's size, against a plain float32 writing of the same networks.

    python bench/step.py                  # the ratio of the medians of interleaved steps
    python bench/step.py --loss           # both trained for 200 steps from the same weights on the same clips
    python bench/step.py --out FILE       # a results file beside the printed line

Both go through `tacit.train.fit`, so both have its fused optimiser, its clipping and its guard against NaN. What is
compared is the networks and how they run: ours with the precision and layout that the recipe asks for, the other as
one would write it down from the paper: NCHW, float32, the latent spread over all pixels and concatenated.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.clip import Clip, floats
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import bootstrap
from tacit.latents.forward import Painted
from tacit.latents.inverse import Stacked
from tacit.latents.model import LatentActions
from tacit.part import Part
from tacit.parts.books import VQ
from tacit.train import Plan, fit

BAR = 1.5
TOLERANCE = 0.05


def ours(*, size: int, width: int, base: int) -> LatentActions:
    """What the recipe `lapo` builds."""
    short = VQ()
    inverse = Stacked(frame=(size, size), frames=3, dim=short.width, width=width)
    forward = Painted(frame=(size, size), frames=2, dim=short.dim, base=base)
    return LatentActions(inverse=inverse, bottleneck=short, forward=forward, past=1)


class Plain(Part):
    """The same two networks from the same weights, written out with no thought for speed."""

    def __init__(self) -> None:
        self.register_buffer("scale", torch.tensor(0.0))

    @classmethod
    def of(cls, model: LatentActions) -> Plain:
        plain, model = cls(), copy.deepcopy(model)
        look, net = model.inverse.look, model.onward.net
        plain.stages = nn.ModuleList()
        for stage in look.stages:
            convs = [stage.widen, *(conv for block in stage.blocks for conv in (block.one, block.two))]
            plain.stages.append(nn.ModuleList(convs))
        height = width = model.inverse.look.frame[0]
        for _ in look.stages:
            height, width = (height + 1) // 2, (width + 1) // 2
        with torch.no_grad():  # ours reads the picture channels last, a plain flatten reads them first
            weight = look.out.weight.view(look.dim, height, width, -1).permute(0, 3, 1, 2).flatten(1)
            look.out.weight.copy_(weight)
        plain.out, plain.head, plain.short = look.out, model.inverse.out, model.bottleneck
        plain.first = nn.Conv2d(6 + net.dim, net.first.out_channels, net.first.kernel_size, 2, net.first.padding)
        plain.first.load_state_dict(net.first.state_dict())
        plain.downs, plain.ups, plain.last = net.downs, net.ups, net.last
        return plain

    def inverse(self, x: Tensor) -> Tensor:
        for widen, *convs in self.stages:
            x = F.max_pool2d(widen(x), 3, stride=2, padding=1)
            for one, two in zip(convs[::2], convs[1::2], strict=True):
                x = x + two(F.relu(one(F.relu(x))))
        return self.head(F.relu(self.out(F.relu(x).flatten(1))))

    def forward_model(self, frames: Tensor, z: Tensor) -> Tensor:
        spread = z[:, :, None, None].expand(-1, -1, *frames.shape[2:])
        x = F.relu(self.first(torch.cat([frames, spread], 1)))
        skips = [x]
        for down in self.downs:
            skips.append(F.relu(down(skips[-1])))
        x = skips.pop()
        for up, skip in zip(self.ups, [z[:, :, None, None], *reversed(skips)], strict=True):
            x = F.relu(up(torch.cat([x, skip], 1)))
        return torch.tanh(self.last(torch.cat([x, frames], 1))) / 2

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        frames = floats(clip.frames)
        found = self.short(self.inverse(frames.flatten(1, 2)))
        guess = self.forward_model(frames[:, :2].flatten(1, 2), found.z)
        miss, still = F.mse_loss(guess, frames[:, 2]), F.mse_loss(frames[:, 1], frames[:, 2])
        self.scale.lerp_(still.detach(), 0.01 if self.scale > 0 else 1.0)
        return miss / self.scale.clamp(min=1e-6) + found.loss, {"fvu": (miss / still).detach(), **found.metrics}


def video(count: int, *, batch: int, size: int) -> list[Clip]:
    """Clips of a disc that moves one of five ways over a textured ground, laid in memory as the cache lays them."""
    random = torch.Generator().manual_seed(0)
    ways = torch.tensor([[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0]])
    ground = torch.randint(40, 120, (size, size, 3), generator=random).float()
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    clips = []
    for _ in range(count):
        place = torch.randint(12, size - 12, (batch, 1, 2), generator=random)
        steps = ways[torch.randint(5, (batch, 2), generator=random)]
        places = torch.cat([place, place + steps.cumsum(1)], 1)[..., None, None]
        disc = ((rows - places[:, :, 0]) ** 2 + (columns - places[:, :, 1]) ** 2 < 30)[..., None]
        frames = torch.where(disc, torch.tensor([250.0, 60.0, 30.0]), ground).byte()
        clips.append(Clip(frames=frames.permute(0, 1, 4, 2, 3)))
    return clips


class Timed:
    """The clips in turn, noting how long each step took until it asked for the next."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips, self.seconds = clips, []  # type: ignore[var-annotated]

    def stream(self, batch: int, *, seed: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Clip]:
        for step in range(start, 10**9):
            began = time.perf_counter()
            yield self.clips[step % len(self.clips)]
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - began)


class Curve:
    """Keeps the rows of the log that `fit` would write."""

    every = 1

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def __call__(self, step: int, model: Part, row: dict[str, float]) -> None:
        self.rows.append(row)


def ratio(models: tuple[Part, Part], plans: tuple[Plan, Plan], *, clips: list[Clip], reps: int) -> dict[str, object]:
    """Medians of steps taken in turn: two of the one, two of the other, the first of each pair not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for rep in range(reps + 1):
        for model, plan, kept in zip(models, plans, seconds, strict=True):
            source = Timed(clips)
            fit(model, source, None, plan.replace(steps=3, log_every=10))
            if rep:  # the first round warms up
                kept.append(source.seconds[1])
    fast, slow = (statistics.median(kept) for kept in seconds)
    return {"ratio": slow / fast, "ours": seconds[0], "plain": seconds[1], "median_ours": fast, "median_plain": slow}


def losses(models: tuple[Part, Part], plans: tuple[Plan, Plan], *, clips: list[Clip], steps: int) -> dict[str, object]:
    """Both trained alike; the mean of the last tenth of the steps, as a share of copying the last frame."""
    found = []
    for model, plan in zip(models, plans, strict=True):
        curve = Curve()
        fit(model, Timed(clips), None, plan.replace(steps=steps, log_every=1), watch=[curve])
        tail = curve.rows[-max(1, steps // 10) :]
        found.append({k: statistics.fmean(row[k] for row in tail) for k in ("loss", "fvu", "perplexity")})
    apart = abs(found[0]["loss"] - found[1]["loss"]) / found[1]["loss"]
    return {"ours": found[0], "plain": found[1], "apart": apart, "tolerance": TOLERANCE, "equal": apart <= TOLERANCE}


def claimed(speed: dict[str, Any], both: Any, *, passed: bool, given: argparse.Namespace) -> None:
    """A file of results, with the seconds of every step and the losses, and a figure of the steps."""
    pairs = [{"ours": fast, "plain": slow} for fast, slow in zip(speed["ours"], speed["plain"], strict=True)]
    ratios = np.array([pair["plain"] / pair["ours"] for pair in pairs])
    found = bootstrap(ratios, statistic=np.median, method="percentile")
    setting = f"batch {given.batch} at {given.size} x {given.size}, width {given.width}, base {given.base}"
    losses = f"; losses {both['apart']:.1%} apart after {given.steps} steps" if both else ""

    def draw(axes: Any) -> None:
        for place, name in enumerate(("plain", "ours")):
            seconds = [pair[name] for pair in pairs]
            axes.barh(place, statistics.median(seconds), height=0.5)
            axes.plot(seconds, [place] * len(seconds), "k.", alpha=0.5)
        axes.set_yticks([0, 1], ["plain float32 NCHW", "ours"])
        axes.set_xlabel(f"seconds a step of lapo, {setting}")

    Claim(
        claim=f"One training step of lapo ({setting}) is {speed['ratio']:.2f} times as fast as a plain float32 NCHW "
        f"writing of the same networks{losses}.",
        command=shlex.join(["python", "bench/step.py", *sys.argv[1:]]),
        value=speed["ratio"],
        interval=[found.low, found.high],
        n=len(pairs),
        seeds=(0,),
        bar=f"at least {BAR} times as fast" + (f", losses at most {TOLERANCE:.0%} apart" if both else ""),
        passed=passed,
        rows=pairs,
        extra={"loss": both},
    ).save(given.out, draw=draw)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--reps", type=int, default=5, help="steps of each that are timed")
    parser.add_argument("--steps", type=int, default=200, help="steps of the comparison of losses")
    parser.add_argument("--loss", action="store_true", help="train both and compare losses too")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=4, help="IMPALA's width")
    parser.add_argument("--base", type=int, default=24, help="the U-Net's base")
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    given = parser.parse_args()

    torch.manual_seed(0)
    model = ours(size=given.size, width=given.width, base=given.base)
    plain = Plain.of(model)
    plan = Plan(batch=given.batch, precision="bfloat16", warmup=50)
    plans = plan, plan.replace(precision="float32", channels_last=False)
    fresh = copy.deepcopy((model, plain))
    clips = video(4, batch=given.batch, size=given.size)
    found = ratio((model, plain), plans, clips=clips, reps=given.reps)
    print(
        f"step of lapo, batch {given.batch}: {found['median_ours']:.3f} s against {found['median_plain']:.3f} s, "
        f"{found['ratio']:.2f} times as fast (bar {BAR})"
    )
    passed = bool(found["ratio"] >= BAR)  # type: ignore[operator]
    rows: dict[str, object] = {"speed": found}
    if given.loss:
        rows["loss"] = both = losses(
            fresh, plans, clips=video(50, batch=given.batch, size=given.size), steps=given.steps
        )
        print(f"loss after {given.steps} steps: {both['ours']} against {both['plain']}, {both['apart']:.1%} apart")
        passed = passed and bool(both["equal"])
    if given.out:
        claimed(found, rows.get("loss"), passed=passed, given=given)
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
