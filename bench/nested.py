"""One latent of variable length against a model trained for each length: what does the freedom cost?

    python bench/nested.py --out results/nested.json

Three dm_control tasks as states. On each, with each seed: one model of sixteen numbers of which any beginning is a
latent (``Nested``), and one model for each fixed width, all the same but for the bottleneck: the same data, networks,
steps and seed. Every one is judged at its width by two things: how well a line reads the true action from the latent on
held-out episodes, and what a policy earns that clones the expert's latents and is taught by 256 labels what they mean.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import Arm
from cells import kept, over
from torch import Tensor

from tacit.clip import Clip
from tacit.data.collect import collect, opened
from tacit.data.episodes import Episodes
from tacit.envs.simulator import Simulator
from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import normalise
from tacit.evaluate.probe import probe
from tacit.evaluate.rollout import Chance, rollout
from tacit.latents.decode import Decoder, decoder
from tacit.latents.inverse import Between
from tacit.latents.model import LatentActions, label
from tacit.latents.stated import Stated
from tacit.parts.mlp import Layers
from tacit.parts.nested import Nested
from tacit.parts.quantize import Bottleneck, Free
from tacit.policies.policy import Memory, Policy
from tacit.train import Plan, fit

BUDGETS = (1, 2, 4, 8, 16)
CLOSE = 0.02  # of an R2, and of the way from random to the expert
TEST = 10_000  # the seed of the policies' own episodes, far from those of the recordings
BAR = (
    "one nested model within 2 % of separately trained fixed widths at every budget, in probe R2 and normalised "
    "return: the mean over seeds short by at most 0.02, in every environment"
)
PLACES = ("control/reacher", "control/point_mass", "control/cheetah")
METHODS = ("nested", "fixed")
COLUMNS = {"probe": "R2 of the true action", "return": "normalised return"}


@dataclass(frozen=True)
class Terms:
    """All that decides a cell beside environment, seed and model."""

    episodes: int = 120
    noise: float = 0.5  # of the expert, who takes turns with play
    steps: int = 2000
    draw: str = "even"
    settle: int = 1000  # steps in which the order of the nested model is found
    labels: int = 256
    piloted: int = 1000  # steps of the policy
    tries: int = 20


def seen(name: str) -> Simulator:
    """A simulator that draws nothing: nothing here looks at pictures, and they are most of the time.

    Its frames are the state's first bytes, by which episodes are told apart where sides are kept disjoint.
    """
    simulator = Arm(name.removeprefix("arms/"), size=16) if name.startswith("arms/") else opened(name, size=16)

    def frame() -> np.ndarray:
        return np.frombuffer(simulator.state()[:3].tobytes(), np.uint8).reshape(2, 2, 3)

    simulator.frame = frame  # type: ignore[method-assign]
    return simulator


@functools.lru_cache(maxsize=1)
def simulators(name: str) -> list[Simulator]:
    return [seen(name) for _ in range(10)]


@dataclass(frozen=True)
class Scale:
    """What makes a state's numbers weigh alike: metres and metres a second have no common unit."""

    centre: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, data: Episodes) -> Scale:
        state = data.column("state")
        assert state is not None
        return cls(state.mean(0), np.where(state.std(0) > 1e-4, state.std(0), 1.0))

    def __call__(self, data: Episodes) -> Episodes:
        episodes = (data.episode(i) for i in range(len(data)))
        scaled = (e.replace(state=((e.state - self.centre) / self.spread).astype(np.float32)) for e in episodes)
        return Episodes.of(scaled, space=data.spec.space, fps=data.spec.fps, name=data.spec.name)


@functools.lru_cache(maxsize=1)
def sides(name: str, terms: Terms, *, seed: int) -> tuple[Episodes, Episodes, Scale]:
    """What is learnt from, what is judged on, and the scale that both are on."""
    job = functools.partial(seen, name)
    count, who = terms.episodes if name != "control/cheetah" else terms.episodes // 2, ["expert", "play"]
    data = collect(job, episodes=count, demonstrator=who, noise=terms.noise, seed=seed, workers=1, progress=False)
    train, held = data.split(0.25, seed=seed)
    scale = Scale.of(train)
    return scale(train), scale(held), scale


def model(data: Episodes, short: Bottleneck, *, steps: int, seed: int) -> LatentActions:
    """A latent action model of states that is as large whatever its bottleneck."""
    torch.manual_seed(seed)
    latents = LatentActions(
        encoder=Layers(inputs=data.spec.state, dim=64, width=128, depth=1),
        inverse=Between(features=64, dim=short.width, width=128),
        bottleneck=short,
        forward=Stated(state=data.spec.state, features=64, dim=short.dim, width=128),
        of="state",
    )
    plan = Plan(steps=steps, batch=128, rate=2e-3, seed=seed, device="cpu", log_every=1000)
    return fit(latents, data.unlabelled().clips(2), None, plan)


class Pilot(Policy):
    """Clones the latent of what the demonstrator does from the state, on one scale for all its numbers."""

    def __init__(self, *, state: int, latent: int) -> None:
        super().__init__()
        self.net = Layers(inputs=state, dim=latent, width=128)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(()))

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        assert clip.state is not None and clip.latents is not None
        return (self.net(clip.state[:, :-1]) - (clip.latents - self.mean) / self.spread).square().mean(), {}

    def said(self, state: Tensor) -> Tensor:
        """The latent that is wished for in each state."""
        return self.net(state) * self.spread + self.mean


class Led(Policy):
    """Acts by a pilot's wish and a decoder, as ``Following`` does, from states."""

    past = 1

    def __init__(self, *, pilot: Pilot, latents: LatentActions, decoder: Decoder, scale: Scale) -> None:
        super().__init__()
        self.pilot, self.latents, self.decoder = pilot, latents, decoder
        self.register_buffer("centre", torch.tensor(scale.centre, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(scale.spread, dtype=torch.float32))

    def act(self, observation: Clip, memory: Memory | None) -> tuple[Tensor, Memory | None]:
        assert observation.state is not None and memory is not None
        now = (observation.state - self.centre) / self.spread
        before = memory.get("state", now)
        before = torch.where(memory["count"][:, None, None] > 0, before, now)
        just = self.latents.infer(Clip(state=torch.cat([before, now], 1)))[:, 0]
        just = torch.where(memory["count"][:, None] > 0, just, torch.zeros_like(just))
        features = self.latents.features(Clip(state=now))[:, 0]
        action = self.decoder(self.pilot.said(now[:, 0]), just, features)
        return action, {"count": torch.ones_like(memory["count"]), "state": now}


def policy(latents: LatentActions, data: Episodes, scale: Scale, *, terms: Terms, seed: int) -> Led:
    """What ``terms.labels`` labels make of a latent model: the pilot has none of them."""
    shown = label(latents, data.select("expert"))
    torch.manual_seed(seed)
    pilot = Pilot(state=data.spec.state, latent=latents.dim)
    known = torch.from_numpy(np.concatenate([shown.episode(i).latents for i in range(len(shown))]))
    varied = (known - known.mean(0)).square().mean(0)
    pilot.mean.copy_(known.mean(0))
    pilot.spread.copy_(varied[varied > 1e-9].mean().sqrt())  # what a budget leaves out never varies
    plan = Plan(steps=terms.piloted, batch=256, rate=2e-3, seed=seed, device="cpu", log_every=1000)
    fit(pilot, shown.unlabelled().clips(2), None, plan)
    few = data.keep_labels(terms.labels, seed=seed, source="expert")
    found, _ = decoder(latents, few, wishes=True)
    return Led(pilot=pilot, latents=latents, decoder=found, scale=scale).eval()


@functools.lru_cache(maxsize=4)
def ends(name: str, tries: int, *, seed: int) -> tuple[float, float]:
    """What chance and the noiseless expert earn on the episodes that the policies play."""
    played = (
        rollout(who, simulators(name), episodes=tries, seed=TEST + seed)
        for who in (Chance(), simulators(name)[0].expert())
    )
    floor, ceiling = (float(r.returns.mean()) for r in played)
    return floor, ceiling


def judged(
    latents: LatentActions, name: str, terms: Terms, *, seed: int, acts: bool = True, luck: int = 0
) -> dict[str, Any]:
    """A model at the width it has now; with other ``luck`` its policy has other weights at first, and other labels."""
    train, held, scale = sides(name, terms, seed=seed)
    read = probe(latents, held, seed=seed)
    if not acts:
        return {"probe": read.value, "return": None, "success": None}
    led = policy(latents, train, scale, terms=terms, seed=seed + 1000 * luck)
    played = rollout(led, simulators(name), episodes=terms.tries, seed=TEST + seed)
    floor, ceiling = ends(name, terms.tries, seed=seed)
    earned = float(normalise(played.returns, floor=floor, ceiling=ceiling).mean())
    won = float(played.successes.mean()) if played.successes is not None else None
    return {"probe": read.value, "return": earned, "success": won}


def cell(name: str, seed: int, terms: Terms) -> list[dict[str, Any]]:
    """One environment and seed: a row for each budget of the nested model and for each fixed width."""
    train, _, _ = sides(name, terms, seed=seed)
    rows: list[dict[str, Any]] = []
    most = max(BUDGETS)
    for method, settle in (("nested", terms.settle), ("unsettled", 0)):
        short = Nested(Free(most), slots=most, draw=terms.draw, settle=settle)  # type: ignore[arg-type]
        one = model(train, short, steps=terms.steps, seed=seed)
        for budget in BUDGETS:
            short.budget = budget
            acts = method == "nested"  # the other is there to see what settling does to the latent
            rows.append({"method": method, "budget": budget} | judged(one, name, terms, seed=seed, acts=acts))
    for budget in BUDGETS:
        fixed = model(train, Free(budget), steps=terms.steps, seed=seed)
        rows.append({"method": "fixed", "budget": budget} | judged(fixed, name, terms, seed=seed))
    return [{"environment": name, "seed": seed} | row for row in rows]


def done(name: str, seed: int, terms: Terms, home: Path) -> list[dict[str, Any]]:
    """A cell from the disk if it was finished with the same terms, else made and put there."""
    began, path = time.perf_counter(), home / f"{name.replace('/', '-')}-{seed}.json"
    rows, made = kept(path, asdict(terms), lambda: cell(name, seed, terms))
    if made:
        short = {m: " ".join(f"{r['probe']:.2f}/{r['return']:.2f}" for r in rows if r["method"] == m) for m in METHODS}
        other = " ".join(f"{r['probe']:.2f}" for r in rows if r["method"] == "unsettled")
        line = f"probe/return at {BUDGETS}: {short}, unsettled {other}"
        print(f"{name}, seed {seed}, {time.perf_counter() - began:.0f} s: {line}", flush=True)
    return rows


def gaps(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how much the nested model is above the fixed width of its budget, seed by seed."""
    found = []
    fixed = {(r["environment"], r["seed"], r["budget"]): r for r in rows if r["method"] == "fixed"}
    pairs = [(r, fixed[r["environment"], r["seed"], r["budget"]]) for r in rows if r["method"] == "nested"]
    apart = [{**one, **{c: one[c] - other[c] for c in COLUMNS}} for one, other in pairs]
    for name in [*dict.fromkeys(row["environment"] for row in rows), "all"]:
        for budget in BUDGETS:
            where = {"budget": budget} | ({} if name == "all" else {"environment": name})
            for column in COLUMNS:
                gap = over(apart, column, **where)
                ours, theirs = (over(rows, column, method=m, **where).value for m in METHODS)
                entry = {"environment": name, "budget": budget, "measure": column, "nested": ours, "fixed": theirs}
                found.append(entry | {"gap": gap.value, "low": gap.low, "high": gap.high, "close": gap.value >= -CLOSE})
    return found


def sentence(told: Sequence[Mapping[str, Any]]) -> str:
    """What came out, shortfalls first, in words that follow from the numbers."""
    places = [e for e in told if e["environment"] != "all"]
    short = [e for e in places if not e["close"]]
    whole = [e for e in told if e["environment"] == "all"]
    said = f"One nested model is at most {CLOSE} below the fixed width in {len(places) - len(short)} of {len(places)} "
    said += "comparisons (environment, budget, probe or return); over all environments nested less fixed is "
    for column, name in COLUMNS.items():
        said += (
            f"in {name} "
            + ", ".join(f"{e['gap']:+.3f} at {e['budget']}" for e in whole if e["measure"] == column)
            + "; "
        )
    worst = "; ".join(
        f"{e['environment']} at {e['budget']}: {COLUMNS[e['measure']]} {e['nested']:.2f} against {e['fixed']:.2f}"
        for e in sorted(short, key=lambda e: e["gap"])
    )
    return said.removesuffix("; ") + "." + (f" Short: {worst}." if short else "")


def unsettled(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the probe loses where the nested model drops as much to the end."""
    lost = {b: [over(rows, "probe", method=m, budget=b).value for m in ("unsettled", "fixed")] for b in BUDGETS}
    said = ", ".join(f"{one - other:+.3f} at {b}" for b, (one, other) in lost.items())
    return f" Where it drops as much to the end, in R2: {said}."


def drawn(rows: Sequence[Mapping[str, Any]], axes: Any) -> None:
    """A panel for each environment and measure: what each budget gives, nested and fixed, over seeds."""
    figure, places = axes.figure, list(dict.fromkeys(row["environment"] for row in rows))
    axes.remove()
    figure.set_size_inches(3.0 * len(places) + 0.6, 4.8)
    panels = figure.subplots(len(COLUMNS), len(places), sharex=True, squeeze=False)
    for (i, j), panel in np.ndenumerate(panels):
        column = list(COLUMNS)[i]
        for shift, (method, colour) in enumerate(zip(METHODS, ("#2a6f97", "#888888"), strict=True)):
            found = [over(rows, column, environment=places[j], budget=b, method=method) for b in BUDGETS]
            at = np.arange(len(BUDGETS)) + 0.12 * shift
            panel.plot(at, [f.value for f in found], "o-", color=colour, label=method, markersize=4)
            panel.vlines(at, [f.low for f in found], [f.high for f in found], color=colour, linewidth=1)
        panel.set_xticks(range(len(BUDGETS)), BUDGETS)
        panel.set_ylim(-0.1, 1.1)
        panel.set_title(places[j] if i == 0 else "", fontsize=9)
        panel.set_ylabel(COLUMNS[column] if j == 0 else "")
    panels[0, 0].legend(fontsize=8, loc="lower right")
    figure.supxlabel("numbers in the latent")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="from 20 on: 0, 1, 2 and 11 chose settings")
    parser.add_argument("--environments", nargs="+", default=list(PLACES))
    parser.add_argument("--draw", choices=("powers", "even"), default=Terms.draw, help="how the nested model draws")
    parser.add_argument("--home", type=Path, default=Path("out/nested"), help="where finished cells are kept")
    parser.add_argument("--out", type=Path, help="a file of results, with its figure beside it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    terms, seeds = Terms(draw=asked.draw), tuple(range(20, 20 + asked.seeds))
    rows = [row for name in asked.environments for seed in seeds for row in done(name, seed, terms, asked.home)]
    told = gaps(rows)
    said = sentence(told) + unsettled(rows)
    print(said)
    passed = all(entry["close"] for entry in told)
    for simulator in simulators(asked.environments[-1]):
        simulator.close()
    if asked.out:
        whole = {(e["measure"], e["budget"]): e for e in told if e["environment"] == "all"}
        Claim(
            claim=said,
            command=shlex.join(["python", "bench/nested.py", *sys.argv[1:]]),
            value={c: {str(b): whole[c, b]["gap"] for b in BUDGETS} for c in COLUMNS},
            interval={c: {str(b): [whole[c, b]["low"], whole[c, b]["high"]] for b in BUDGETS} for c in COLUMNS},
            n=len(seeds) * len(asked.environments),
            seeds=seeds,
            bar=BAR,
            passed=passed,
            rows=rows,
            extra={"gaps": told, "terms": asdict(terms)},
        ).save(asked.out, draw=lambda axes: drawn(rows, axes))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
