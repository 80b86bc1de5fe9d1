"""What `tacit data curate` does: one rule of ``tacit.data.curate`` over recordings, and what it left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Group
from tyro.conf import OmitArgPrefixes, arg

from tacit import info as here
from tacit.commands import Folder, counted, counts
from tacit.info import Told
from tacit.seen import Seen, number

if TYPE_CHECKING:
    from tacit.data.curate import Dropped
    from tacit.data.episodes import Episodes

Source = Annotated[Path, arg(metavar="PATH")]
Out = Annotated[Path, arg(metavar="OUT")]
How = Literal[
    "cut", "trim", "distinct", "sample", "retrieve", "retime", "smoothness", "steadiness", "typical_actions",
    "typical_states", "typical_ends", "consistency", "diversity", "information", "typical_length", "chance",
]  # fmt: skip


def curate(
    how: Annotated[How, arg(metavar="HOW")],
    source: Source,
    out: Out,
    /,
    *,
    look: OmitArgPrefixes[Seen] = Seen(),
    share: Annotated[float, number(float, "SHARE", least=0.001, most=1)] = 0.8,
    demos: Folder = None,
    count: Annotated[int, number(int, "INT", least=1)] = 100,
    speeds: tuple[float, ...] = (0.5, 1.0, 2.0),
    seed: int = 0,
    dry_run: bool = False,
) -> Told:
    """Drop, cut or choose episodes by one rule, write what is left as a dataset, and tell what went and why.

    Rules that cut or choose:
      cut         in two where the scene changes
      trim        what stands still, at the ends and altogether
      distinct    one of each group of copies and near copies
      sample      so many, those of high return more often
      retrieve    the so many stretches that are most like the demonstrations in --demos
      retime      the same at other speeds, with the speed in the state

    Scores: the best --share is kept (scores of actions want labels, of states states), best being those whose ...
      smoothness, steadiness   actions jerk, or tremble, least
      typical_actions, _states strangest actions, or states, are nearest to those of others
      typical_ends             last state is nearest to where others end
      consistency              actions are what others do in the same situation
      information              actions are told best by the situation, and vary
      diversity                situations and actions are farthest from all others'
      typical_length, chance   length is nearest to the median; or whose lot is drawn

      tacit data curate distinct out/data out/distinct
      tacit data curate consistency out/data out/best --share 0.7
      tacit data curate retrieve out/library out/near --demos out/demos --count 500

    Args:
        how: the rule
        source: a dataset, or recordings of any known format
        out: the folder to write
        share: of the episodes that a score keeps
        demos: demonstrations, for retrieve
        count: how many, for sample and retrieve
        speeds: for retime
        seed: for sample
        dry_run: tell what would go and why, write nothing
    """
    from tacit.data.transfer import rounded, transfer

    episodes = look.open(source)
    like = None if demos is None else look.open(demos)
    kept, dropped = _applied(how, episodes, share=share, like=like, count=count, speeds=speeds, seed=seed)
    facts = {"source": source, "out": out, "rule": how, "before": counted(episodes), "dropped": dropped.plain()}
    if dry_run:
        told = f"{source}: {counts(kept)} of {len(episodes):,} episodes would be left. Nothing was written."
        return Told(facts | {"dry_run": True, "after": counted(kept)}, Group(dropped, told))
    made = transfer(rounded(kept), out).data
    told = f"{out}: {counts(made)}, of {len(episodes):,} episodes."
    return Told(facts | {"dry_run": False, "after": counted(made)}, Group(dropped, told))


def _applied(
    how: How,
    episodes: Episodes,
    *,
    share: float,
    like: Episodes | None,
    count: int,
    speeds: tuple[float, ...],
    seed: int,
) -> tuple[Episodes, Dropped]:
    """One rule, with what it needs of all that was asked."""
    from tacit.data import curate as rules

    if rules.LOOKS.get(how) == "states" and not episodes.spec.state:
        raise ValueError(
            f"{how} looks at states, and these recordings hold none. Choose another rule: consistency, "
            "diversity and information look at pictures where there are labels, typical_length at neither."
        )
    if how in rules.SCORES:
        return rules.keep(episodes, rules.SCORES[how], share=share)
    if how == "sample":
        return rules.sample(episodes, count, seed=seed)
    if how == "retime":
        return rules.retime(episodes, speeds)
    if how == "retrieve":
        if like is None:
            raise here.Unknown("retrieve wants demonstrations to be like: give --demos PATH.")
        return rules.retrieve(episodes, like, count=count)
    shapers: dict[str, Any] = {"cut": rules.cut, "trim": rules.trim, "distinct": rules.distinct}
    return shapers[how](episodes)
