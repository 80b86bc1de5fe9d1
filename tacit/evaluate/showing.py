"""The demo's page and its claim: what the rows say in one sentence, and the pictures that let a person see it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tacit.clip import Clip
from tacit.data.clips import Clips
from tacit.data.episodes import Episodes
from tacit.evaluate import page
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import normalise, summarise
from tacit.evaluate.report import Report, log
from tacit.latents.model import LatentActions

ORDER = ("tacit", "lapo", "idm from ours", "idm", "bc", "all labels", "expert", "random")
Rows = Sequence[Mapping[str, Any]]


def gathered(out: Path, seeds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """All rows of all seeds in a fixed order, and the seconds that each kind of stage took over them."""
    rows: list[dict[str, Any]] = []
    stages: dict[str, float] = {}
    for seed in range(seeds):
        for path in sorted((out / f"seed-{seed}" / "rows").glob("*.json")):
            told = json.loads(path.read_text())
            rows += told["rows"]
            name = path.stem.rsplit("-", 1)[0].rstrip("-")
            stages[name] = round(stages.get(name, 0.0) + told["seconds"], 1)
    order = {name: i for i, name in enumerate(ORDER)}
    _scaled(rows)
    return sorted(rows, key=lambda r: (order.get(r["method"], len(order)), r["labels"], r["seed"])), stages


def _scaled(rows: list[dict[str, Any]]) -> None:
    """Add to each row its return between chance (0) and the noiseless expert (1), both tried on the same episodes."""
    returns = {end: [row["return"] for row in rows if row["method"] == end] for end in ("random", "expert")}
    floor, ceiling = (float(np.mean(own)) for own in returns.values())
    for row, end in itertools.product(rows, ("", "_low", "_high")):
        known = floor < ceiling
        row[f"normalised{end}"] = (
            float(normalise(row[f"return{end}"], floor=floor, ceiling=ceiling)) if known else math.nan
        )


def headline(summary: Rows, budgets: Sequence[int]) -> str:
    """One sentence: ours and the others at the smallest budget."""
    at = {e["method"]: e["mean"] for e in summary if e["labels"] == budgets[0]}
    others = ", ".join(f"{name} {value:.0%}" for name, value in at.items() if name != "tacit")
    ends = ", ".join(f"{e['method']} {e['mean']:.0%}" for e in summary if e["method"] in ("all labels", "random"))
    ours = f"With {budgets[0]} labelled moves the policy of tacit succeeds in {at['tacit']:.0%} of episodes"
    return f"{ours}; {others}. The ends of the scale: {ends}."


def filmed(folder: Path, names: Mapping[str, str], *, fps: float) -> page.Figure:
    """The first two episodes of each policy, not chosen."""
    films = {
        title: np.load(folder / f"{name}.npy") for title, name in names.items() if (folder / f"{name}.npy").exists()
    }
    return page.films(
        films, title="Acting", fps=fps, caption="The first two episodes of each policy, not chosen. Each clip loops."
    )


@torch.inference_mode()
def foreseen(model: LatentActions, video: Episodes, *, count: int = 6) -> page.Figure:
    """Frames that the model was shown in pairs: before, after, what it made of before and its latent."""
    clip = _some(video, count)
    guess = model.predict(clip, model.infer(clip))[:, 0]
    before, after = (_picture(clip.frames[:, i]) for i in (0, 1))  # type: ignore[index]
    return page.predictions(before, after, predicted=_picture(guess + 0.5))


@torch.inference_mode()
def moved(model: LatentActions, video: Episodes, *, count: int = 6) -> page.Figure:
    """What each of the strongest latent numbers does to one frame."""
    clip = _some(video, 64)
    latents = model.infer(clip)[:, 0]
    strongest = latents.std(0).argsort(descending=True)[:count]
    one = Clip(frames=clip.frames[:1])  # type: ignore[index]
    outcomes, names = [], []
    for index in strongest.tolist():
        z = torch.zeros(1, 1, model.dim)
        z[..., index] = 3 * latents[:, index].std()
        outcomes.append(_picture(model.predict(one, z)[0] + 0.5)[0])
        names.append(f"z{index} up")
    return page.effects(_picture(one.frames[0, :1])[0], np.stack(outcomes), names=names)  # type: ignore[index]


def curves(folder: Path) -> page.Figure:
    """How the losses of one seed's models fell."""
    names = {
        "tacit: latents": "tacit",
        "tacit: policy": "tacit-pilot/pilot",
        "lapo: latents": "lapo",
        "bc, all labels": "bc--1",
    }
    names |= {"idm 64: inverse": "idm-64/inverse", "bc 64": "bc-64"}
    return page.losses(
        {
            title: log(folder / name / "log.jsonl")
            for title, name in names.items()
            if (folder / name / "log.jsonl").exists()
        }
    )


def labels_curve(axes: Any, summary: Rows, *, budgets: Sequence[int]) -> None:
    """What each further label buys, on paper: the figure that goes with the claim."""
    for method in dict.fromkeys(e["method"] for e in summary if e["labels"] in budgets):
        own = [next(e for e in summary if (e["method"], e["labels"]) == (method, n)) for n in budgets]
        known = [e for e in own if e["low"] is not None]
        axes.fill_between(
            [e["labels"] for e in known], [e["low"] for e in known], [e["high"] for e in known], alpha=0.15, linewidth=0
        )
        axes.plot(budgets, [e["mean"] for e in own], "o-", label=method, linewidth=2.4 if method == "tacit" else 1.5)
    ends = [e for e in summary if e["labels"] not in budgets]
    for number, e in enumerate(ends):
        style = ("--", ":", "-.")[number % 3]
        axes.axhline(e["mean"], color="grey", linestyle=style, linewidth=1, label=e["method"])
    axes.set_xscale("log")
    axes.set_xticks(budgets, [str(n) for n in budgets])
    axes.set_xlabel("labelled transitions")
    axes.set_ylabel({"normalised": "return (0: random, 1: the expert)"}.get(summary[0]["metric"], summary[0]["metric"]))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside the lines, never over them


def claimed(report: Report, path: Path, *, where: str, budgets: Sequence[int]) -> Claim:
    """Write the demo's claim against the bar it was given, which one metric, whichever, must meet as a whole."""
    summaries = {metric: summarise(report.rows, metric) for metric in ("success", "normalised")}
    checks = {metric: _checks(_by_method(summary), budgets) for metric, summary in summaries.items()}
    at, first = _by_method(summaries["success"]), budgets[0]
    ours = at["tacit"]
    claim = Claim(
        claim=f"On {where}, {first} labels and unlabelled video give tacit a success of {ours[first]['mean']:.2f}; "
        f"the same labels give bc {at['bc'][first]['mean']:.2f} and idm {at['idm'][first]['mean']:.2f}.",
        command=report.command,
        value={str(n): ours[n]["mean"] for n in budgets},
        interval={str(n): [ours[n]["low"], ours[n]["high"]] for n in budgets},
        n=sum(1 for row in report.rows if row["method"] == "tacit"),
        seeds=report.seeds,
        bar="in success or in normalised return: " + "; ".join(checks["success"]),
        passed=any(all(met.values()) for met in checks.values()),
        rows=report.rows,
        extra={
            "summary": summaries["success"],
            "normalised": summaries["normalised"],
            "checks": checks,
            "seconds": report.seconds,
        },
    )
    claim.save(path, draw=lambda axes: labels_curve(axes, summaries["normalised"], budgets=budgets))
    return claim


def _by_method(summary: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, Mapping[str, Any]]]:
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for entry in summary:
        found.setdefault(entry["method"], {})[entry["labels"]] = entry
    return found


def _checks(at: Mapping[str, Mapping[int, Mapping[str, Any]]], budgets: Sequence[int]) -> dict[str, bool]:
    ours, bc, idm, small = at["tacit"], at["bc"], at["idm"], budgets[:2]
    return {
        "three times bc at the two smallest budgets": all(ours[n]["mean"] >= 3 * bc[n]["mean"] for n in small),
        "intervals of ours and bc apart there": all(ours[n]["low"] > bc[n]["high"] for n in small),
        "not below idm at any budget": all(ours[n]["mean"] >= idm[n]["mean"] for n in budgets),
        "above idm at the two smallest": all(ours[n]["mean"] > idm[n]["mean"] for n in small),
    }


def _some(video: Episodes, count: int) -> Clip:
    clips = Clips(video, 2)
    return clips.batch(np.linspace(0, len(clips) - 1, count).astype(np.int64))


def _picture(frames: torch.Tensor) -> np.ndarray:
    """(N, C, H, W) to (N, H, W, C) bytes."""
    frames = frames.permute(0, 2, 3, 1)
    if frames.dtype != torch.uint8:
        frames = frames.clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(frames.cpu().numpy())
