r"""Where latent actions are worth it: the winner for each count of labels and each strength of the distractor.

    tacit demo --seeds 5 --pretrained --results results/demo.json
    tacit demo --seeds 5 --distract sprites --out out/sprites --results results/demo_sprites.json
    tacit demo --seeds 3 --distract sprites --strength 1 --pretrained --out out/strong \
        --results results/demo_strong.json
    python bench/map.py results/demo.json results/demo_sprites.json results/demo_strong.json --out results/map.json

It draws one map of what demos found: normalised return, of the same seeds. A cell is won by the best method if its lead
over the best of the others, seed by seed, has an interval above nothing; otherwise it is a draw between those two.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tacit.evaluate.claim import Claim
from tacit.evaluate.interval import mean

INKS = {"tacit": "#2a7f62", "bc": "#b3261e", "idm": "#d08c1d", "idm from ours": "#8a6fb3", "lapo": "#5b7ea3"}
LATENT = {"tacit", "lapo", "idm from ours"}  # all begin with latent actions


def strength(command: str) -> float:
    """How strong the distractor of a demo was, as its command says."""
    words = shlex.split(command)
    if "--distract" not in words:
        return 0.0
    return float(words[words.index("--strength") + 1]) if "--strength" in words else 0.5


def cells(told: dict[str, Any]) -> list[dict[str, Any]]:
    """One demo's row of the map: for each count of labels who is best, who is next, and by how much."""
    found = []
    trained = [row for row in told["rows"] if row["method"] in INKS]
    for labels in sorted({row["labels"] for row in trained}):
        scores: dict[str, dict[int, float]] = {}
        for row in trained:
            if row["labels"] == labels:
                scores.setdefault(row["method"], {})[row["seed"]] = row["normalised"]
        ranked = sorted(scores, key=lambda name: -np.mean(list(scores[name].values())))
        best, other = (scores[name] for name in ranked[:2])
        lead = mean([best[seed] - other[seed] for seed in sorted(best.keys() & other.keys())])
        found.append(
            {
                "strength": strength(told["command"]), "labels": labels, "best": ranked[0], "next": ranked[1],
                "lead": lead.value, "low": lead.low, "high": lead.high, "seeds": lead.n, "won": bool(lead.low > 0),
                "normalised": {name: float(np.mean(list(by.values()))) for name, by in scores.items()},
            }
        )  # fmt: skip
    return found


def drawn(rows: list[dict[str, Any]], axes: Any) -> None:
    """The map: the winner's colour in each cell, pale where it is a draw."""
    strengths, budgets = (sorted({row[key] for row in rows}) for key in ("strength", "labels"))
    for row in rows:
        x, y = budgets.index(row["labels"]), strengths.index(row["strength"])
        axes.add_patch(_square(x, y, INKS[row["best"]], alpha=0.9 if row["won"] else 0.35))
        what = row["best"] if row["won"] else f"{row['best']}\nor {row['next']}"
        axes.text(x, y, f"{what}\n{row['normalised'][row['best']]:.2f}, {row['lead']:+.2f}", ha="center", va="center")
    axes.set(xlim=(-0.5, len(budgets) - 0.5), ylim=(-0.5, len(strengths) - 0.5))
    axes.set(xticks=range(len(budgets)), xticklabels=budgets, yticks=range(len(strengths)), yticklabels=strengths)
    axes.set(xlabel="labels", ylabel="strength of the distractor", title="Normalised return, and the lead on the next")


def _square(x: float, y: float, ink: str, *, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=ink, alpha=alpha)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", help="files that `tacit demo --results` wrote")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    told = [json.loads(path.read_text()) for path in asked.demos]
    rows = [row for one in told for row in cells(one)]
    for row in rows:
        sign = "won by" if row["won"] else "a draw of"
        print(f"strength {row['strength']:g}, {row['labels']} labels: {sign} {row['best']}, {row['lead']:+.2f}")
    ours = [row for row in rows if row["won"] and row["best"] in LATENT]
    theirs = [row for row in rows if row["won"] and row["best"] not in LATENT]
    Claim(
        claim=f"Latent actions win {len(ours)} of {len(rows)} cells of labels against distractor strength, methods "
        f"without them {len(theirs)}; {len(rows) - len(ours) - len(theirs)} are draws.",
        command=shlex.join(["python", "bench/map.py", *sys.argv[1:]]),
        value=len(ours) / len(rows),
        interval=None,
        n=len(rows),
        seeds=tuple(range(max(len(one["seeds"]) for one in told))),
        bar="a map with the winner of each cell, and conditions shown under which latent actions beat the same labels "
        "spent on a supervised inverse model",
        passed=bool(ours),
        rows=rows,
    ).save(asked.out, draw=lambda axes: drawn(rows, axes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
