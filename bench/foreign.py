"""What the verdict says of two models that are not ours: written from papers in plain PyTorch, with no part of tacit.

    python bench/foreign.py --out results/verdict/foreign.json

``Narrow`` is LAPO's idea (arXiv 2312.10812) without its codes: an inverse model makes few numbers of two frames, and a
forward model paints the change with them. ``Wide`` is the same with a variational latent as AdaWorld has it (arXiv
2503.18938), wide, and hardly squeezed. Both learn from the pictures of a toy whose truth is known. Beside the verdict
stands what is true of each, measured without any part of the verdict: how well a network reads the action of the latent
alone and of latent and frame together, what the dot's move in a prediction tells of it, at home and where the latent is
lent to another scene, and how much of an unrelated frame comes out when it is put in the future's place. A verdict is
true where that bears it out.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacit.data import toys
from tacit.data.episodes import Episodes
from tacit.envs.dots import Board
from tacit.evaluate.claim import Claim
from tacit.evaluate.verdict import Verdict, examine
from tacit.evaluate.verdict.adapter import adapted

SIDE, STEPS, SEEDS = 16, 2500, (0, 1, 2)
TIED, COPIED = 0.3, 0.7  # what is called bound to its scene, and a copy
FACTS = ("read of z", "read of z and o", "moved at home", "moved elsewhere", "copied of an unrelated frame")
KINDS = ("Narrow", "Wide")
BAR = "runs on at least two foreign models and says something true about each"


def ready(o: Tensor) -> Tensor:
    """Pictures as networks like them: flat, around nought, of about unit size."""
    return 4 * (o.flatten(1) - 0.5)


class Narrow(nn.Module):
    """Two numbers between two frames."""

    dim, beta = 2, 0.0

    def __init__(self) -> None:
        super().__init__()
        pixels = 3 * SIDE * SIDE
        self.inverse = nn.Sequential(
            nn.Linear(2 * pixels, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 2 * self.dim)
        )
        self.paint = nn.Sequential(
            nn.Linear(pixels + self.dim, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, pixels)
        )

    def encode(self, o: Tensor, after: Tensor) -> Tensor:
        return self.inverse(torch.cat([ready(o), ready(after)], 1))[:, : self.dim]

    def predict(self, o: Tensor, z: Tensor) -> Tensor:
        return o + self.paint(torch.cat([ready(o), z], 1)).view_as(o)

    def loss(self, o: Tensor, after: Tensor) -> Tensor:
        mean, log = self.inverse(torch.cat([ready(o), ready(after)], 1)).chunk(2, 1)
        log = log.clamp(-8, 8)
        z = mean + (log / 2).exp() * torch.randn_like(mean) if self.beta else mean
        nats = 0.5 * (mean.square() + log.exp() - 1 - log).sum(1).mean()
        return F.mse_loss(self.predict(o, z), after) * o[0].numel() + self.beta * nats


class Wide(Narrow):
    """Sixty-four numbers with a little noise."""

    dim, beta = 64, 1e-4


def learnt(kind: type[Narrow], data: Episodes, seed: int) -> Narrow:
    torch.manual_seed(seed)
    model = kind()
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    clips = data.unlabelled().clips(2)
    for clip in (clips.batch(torch.randint(len(clips), (256,)).numpy()) for _ in range(STEPS)):
        o, after = (clip.frames.float() / 255).unbind(1)  # type: ignore[union-attr]
        cost = model.loss(o, after)
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def truth(model: Narrow, train: Episodes, held: Episodes, seed: int) -> dict[str, float]:
    """What is so, by labels and by a swap, and by nothing of the verdict's."""

    def rows(data: Episodes) -> tuple[Tensor, Tensor, Tensor]:
        clip = data.clips(2).batch(torch.arange(len(data.clips(2))).numpy())
        o, after = (clip.frames.float() / 255).unbind(1)  # type: ignore[union-attr]
        return o, after, clip.actions[:, 0]  # type: ignore[index]

    def moves(o: Tensor, z: Tensor) -> Tensor:
        return place(model.predict(o, z), empty) - place(o, empty)

    with torch.no_grad():
        (o, after, action), (p, later, true) = rows(train), rows(held)
        empty = o.median(0).values
        z, w = model.encode(o, after), model.encode(p, later)
        there, other = (x.roll(len(x) // 2, 0) for x in (p, later))
        miss = (model.predict(p, model.encode(p, other)) - other).square().sum()
        home, away = moves(p, w), moves(there, w)
    joined, known = torch.cat([z, o.flatten(1)], 1), torch.cat([w, p.flatten(1)], 1)
    copied = float(1 - miss / (p - other).square().sum())
    alone, both = read(z, action, w, true, seed), read(joined, action, known, true, seed)
    return dict(zip(FACTS, (alone, both, line(home, true), line(away, true), copied), strict=True))


def place(frames: Tensor, empty: Tensor) -> Tensor:
    """Where the dot is: the centre of what differs from the empty board."""
    heavy = (frames - empty).abs().sum(1)
    heavy = torch.where(heavy > 0.1 * heavy.amax((1, 2), keepdim=True), heavy, 0.0)
    along = torch.arange(SIDE) + 0.5
    return torch.stack([(heavy.sum(k) * along).sum(1) / heavy.sum((1, 2)).clamp(min=1e-6) for k in (1, 2)], 1)


def line(x: Tensor, y: Tensor) -> float:
    """R2 of what a line of the first, fitted on every other row, tells of the second on the rest."""
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    told = x[1::2] @ torch.linalg.lstsq(x[::2], y[::2]).solution
    return explained(told, y[1::2])


def explained(told: Tensor, true: Tensor) -> float:
    return float((1 - (told - true).square().sum(0) / (true - true.mean(0)).square().sum(0)).mean())


def read(x: Tensor, y: Tensor, test: Tensor, true: Tensor, seed: int) -> float:
    """R2 of what a network of the first tells of the second, on others."""
    torch.manual_seed(seed)
    centre, unit = x.mean(0), x.std(0).clamp(min=1e-4)
    net = nn.Sequential(nn.Linear(x.shape[1], 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 2))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(1500):
        some = torch.randint(len(x), (256,))
        cost = F.mse_loss(net((x[some] - centre) / unit), y[some])
        optimiser.zero_grad()
        cost.backward()
        optimiser.step()
    with torch.no_grad():
        return explained(net((test - centre) / unit), true)


def told(kind: type[Narrow], seed: int) -> dict[str, Any]:
    """One model, the verdict on it, and the truth."""
    board = Board(size=SIDE, goal=False, wrap=False, room=10.0)
    train, held = toys.dots(board, episodes=400, length=20, seed=seed).episodes.split(0.25)
    model = learnt(kind, train, seed)
    found: Verdict = examine(adapted(model), held, most=512, seed=seed)
    facts = truth(model, train, held, seed)
    unread = facts["read of z and o"] - facts["read of z"] >= TIED
    tied = unread or facts["moved at home"] - facts["moved elsewhere"] >= TIED  # to who reads it, or to who acts by it
    so = {"state-entangled": tied, "leaking": facts["copied of an unrelated frame"] >= COPIED}
    right = bool(so.get(found.name, False))
    row = {"model": kind.__name__, "seed": seed, "verdict": found.name, "ailments": list(found.ailments), **facts}
    print(f"{kind.__name__}, seed {seed}: {found.headline}  ({facts})", flush=True)
    return row | {"headline": found.headline, "true": right}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    given = parser.parse_args()
    rows = [told(kind, seed) for seed in SEEDS for kind in (Narrow, Wide)]
    counts = {name: [r["verdict"] for r in rows if r["model"] == name] for name in KINDS}
    said = "; ".join(f"{name} is called {', '.join(sorted(set(words)))}" for name, words in counts.items())
    right = sum(r["true"] for r in rows)
    said = f"Of {len(rows)} models in plain PyTorch the verdict is true of {right}: {said}."
    print(said)
    if given.out:
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/foreign.py", *sys.argv[1:]]),
            value={name: means(rows, name) for name in KINDS},
            interval=None,
            n=len(rows),
            seeds=SEEDS,
            bar=BAR,
            passed=right == len(rows),
            rows=rows,
        ).save(given.out, draw=lambda axes: drawn(rows, axes))
    return 0 if right == len(rows) else 1


def means(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
    some = [r for r in rows if r["model"] == name]
    return {key: sum(r[key] for r in some) / len(some) for key in FACTS}


def drawn(rows: Sequence[dict[str, Any]], axes: Any) -> None:
    """What is true of each model, and what it was called."""
    for i, row in enumerate(rows):
        axes.bar([i + 0.16 * k for k in range(len(FACTS))], [max(0.0, row[key]) for key in FACTS], width=0.14,
                 color=["#2a6f97", "#61a5c2", "#2b9348", "#99d98c", "#d1495b"])  # fmt: skip
    axes.set_xticks([i + 0.32 for i in range(len(rows))], [f"{r['model']}\n{r['verdict']}" for r in rows], fontsize=8)
    axes.set_ylabel("R2 of the action; share of the frame")
    axes.legend([*axes.patches[: len(FACTS)]], FACTS, fontsize=8)


if __name__ == "__main__":
    raise SystemExit(main())
