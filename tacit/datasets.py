"""What `tacit data` does: each verb asks a function of ``tacit.data``, and tells what came of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg

from tacit import info as here
from tacit.commands import Engine, Folder, counted, counts, took
from tacit.curation import curate
from tacit.info import Told
from tacit.seen import Seen, Share, Side, Workers, followed, number

if TYPE_CHECKING:  # what needs torch is imported by the verb that needs it: `tacit data --help` is there at once
    from tacit.data.episodes import Episodes

Source = Annotated[Path, arg(metavar="PATH")]
Out = Annotated[Path, arg(metavar="OUT")]
Several = Positional[Annotated[tuple[Path, ...], arg(metavar="PATH PATH ...", help_behavior_hint="(required)")]]
Camera = Annotated[str | None, arg(metavar="NAME")]
SHOWN = 40  # faults that are told one by one; the rest are counted


def bring(
    source: Source,
    out: Out,
    /,
    *,
    look: OmitArgPrefixes[Seen] = Seen(),
    append: bool = False,
    prefixes: bool = False,
    lossless: bool = False,
    workers: Workers = 2,
    engine: Engine = "local",
    dry_run: bool = False,
) -> Told:
    """Bring recordings of any known format into a dataset folder (LeRobotDataset v3.0).

    Damaged files are named and left out. Stopped or killed, the same command goes on where it was.
    Without --fps everything comes to the lowest rate there is; without --size to the commonest size.

      tacit data import videos/ out/data --size 128 --fps 10
      tacit data import demos.hdf5 out/data --camera agentview_image
      tacit data import videos/ out/data --dry-run

    Args:
        source: a folder of videos or of pictures, npz, robomimic, Minari, zarr, OGBench, LeRobot, a screen recording
        out: the folder to write
        append: add to the dataset that is there
        prefixes: keep damaged recordings as far as they are whole
        lossless: store every pixel as it is; pictures of at most 128 pixels are anyway
        workers: processes that read, on this machine or on the cluster
        engine: this machine's processes, or a Ray cluster's
        dry_run: say what would be read, write nothing
    """
    from tacit.data.transfer import rounded, transfer

    episodes = rounded(look.open(source))
    faults = dict(episodes.reader.faults)
    if dry_run:
        facts = {"source": source, "dry_run": True, **counted(episodes), "left": faults}
        told = f"{source}: {counts(episodes)},{look.told(episodes)}. Nothing was decoded, nothing written: what breaks "
        return Told(facts, _listed(f"{told}off inside, the import itself finds.", faults, "would be left out"))
    began = time.perf_counter()
    made = transfer(
        episodes, out, prefixes=prefixes, workers=workers, engine=engine, lossless=lossless or None, append=append
    )
    seconds = time.perf_counter() - began
    told = f"{out}: {counts(made.data)},{look.told(episodes)}; in {took(seconds)}."
    facts = {"source": source, "out": out, "dry_run": False, **counted(made.data), "seconds": seconds}
    facts |= {"left": dict(made.left), "cut": dict(made.cut), "known": len(made.known)}
    told += f" {len(made.known):,} were there already." if made.known else ""
    if beside := episodes.reader.beside:
        told += f" Columns that have no place there were not brought: {', '.join(beside)}."
    facts |= {"columns_left": list(beside)}
    words = _listed(told, made.left, "left out", more={"kept as far as they are whole": made.cut})
    place = shlex.quote(str(out))
    then = f"Next: tacit data check {place}; tacit train tacit --data {place} --out out/latents"
    return Told(facts, f"{words}\n{then}")


def export(
    source: Source,
    out: Out,
    /,
    *,
    to: Annotated[str, arg(metavar="FORMAT")],
    look: OmitArgPrefixes[Seen] = Seen(),
) -> Told:
    """Write a dataset in another format, for tools that read that one.

      tacit data export out/data out/videos --to videos
      tacit data export out/data out/demos.hdf5 --to robomimic

    Args:
        source: the dataset
        out: the file or folder to write, which must not exist
        to: arrays, frames, minari, ogbench, robomimic, videos, zarr, or lerobot (another rate or size of its own)
    """
    from tacit.data.file import apart
    from tacit.data.formats import FORMATS, WRITABLE

    if to not in (*WRITABLE, "lerobot"):
        raise here.Unknown.of("format to write", to, known=(*WRITABLE, "lerobot"))
    apart(source, out)
    episodes, began = look.open(source), time.perf_counter()
    if to == "lerobot":
        from tacit.data.transfer import rounded, transfer

        transfer(rounded(episodes), out)
    else:
        with followed("writing", episodes):
            FORMATS[to].write(episodes, out)
    seconds = time.perf_counter() - began
    facts = {"source": source, "out": out, "format": to, **counted(episodes), "seconds": seconds}
    lost = " Its latent actions have no place there and were not written." if episodes.spec.latent else ""
    return Told(facts, f"{out}: {counts(episodes)} as {to}, in {took(seconds)}.{'' if to == 'lerobot' else lost}")


def check(
    source: Source,
    /,
    *,
    look: OmitArgPrefixes[Seen] = Seen(),
    held: Folder = None,
    horizon: Annotated[float, number(float, "SECONDS", least=0.001)] = 0.5,
    metadata: bool = False,
    most: Annotated[int, number(int, "INT", least=1)] = 200,
    page: Annotated[Path | None, arg(metavar="FILE")] = None,
    workers: Workers = 2,
    engine: Engine = "local",
) -> Told:
    """Say what is wrong with recordings before anything is learned from them: PASS, WARN or FAIL a line.

    Exit code 0: all pass; 1: something to look at; 2: something that must be mended or left out;
    3: it could not be checked.

      tacit data check videos/
      tacit data check out/data --page out/check.html
      tacit data check out/data --metadata

    Args:
        source: a dataset, or recordings of any known format
        held: another dataset, which must share no episode with this one
        horizon: seconds that an episode must last at least to be of use
        metadata: decode nothing; a second for ten thousand episodes
        most: episodes that are decoded, evenly spread
        page: a self-contained HTML page to write, with a contact sheet
        workers: processes that decode
        engine: this machine's processes, or a Ray cluster's
    """
    from tacit.data.inspect import inspect
    from tacit.state import bar

    episodes, against = look.open(source), None if held is None else look.open(held)
    with bar("looking", most, unit="episodes", shown=not metadata) as advance:
        found = inspect(
            episodes,
            held=against,
            horizon=horizon,
            decode=not metadata,
            most=most,
            workers=workers,
            engine=engine,
            progress=lambda done, total: advance(done, total=total),
        )
    found.name = str(source)  # by which it was asked for, not by what it was once made of
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        found.save(page)
    return Told({"source": source, **found.plain()}, found, found.code)


def repair(source: Source, out: Out, /, *, camera: Camera = None, workers: Workers = 2) -> Told:
    """Save what is whole of a broken dataset, every frame verified, into a new one. Exit code 1: some of it was lost.

      tacit data repair out/broken out/whole

    Args:
        source: the dataset that a crash or a bad disk left, which is never touched
        out: the folder to write
        camera: which camera, where there are several
        workers: processes that read
    """
    from tacit.data.repair import repair as repaired

    began = time.perf_counter()
    made = repaired(source, out, camera=camera, workers=workers)
    lost = {"left": dict(made.left), "cut": dict(made.cut), "broken": dict(made.broken)}
    told = f"{out}: {counts(made.data)} saved, in {took(time.perf_counter() - began)}."
    more = {"kept as far as they are whole": made.cut, "files that could not be read": made.broken}
    facts = {"source": source, "out": out, **counted(made.data), **lost}
    return Told(facts, _listed(told, made.left, "lost", more=more), int(bool(made.left or made.cut)))


def stats(source: Source, /, *, look: OmitArgPrefixes[Seen] = Seen(), pictures: bool = False) -> Told:
    """Count and measure recordings: how long, how fast, what is labelled, and the range of every number.

      tacit data stats out/data

    Args:
        source: a dataset, or recordings of any known format
        pictures: decode the video too, and measure its brightness
    """
    from tacit.data.stats import summed

    episodes = look.open(source)
    with followed("looking", episodes, shown=pictures):
        found = summed(episodes, pictures=pictures)
    lines = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    for name, value in _about(episodes).items():
        lines.add_row(name, value)
    table = Table("column", "rows", "min", "max", "mean", "std", box=SIMPLE_HEAD, pad_edge=False)
    for name, told in found.items():
        for i in range(len(told["mean"])):
            values = [f"{told[k][i]:.4g}" for k in ("min", "max", "mean", "std")]
            table.add_row(name if len(told["mean"]) == 1 else f"{name}[{i}]", f"{told['count'][0]:,}", *values)
    return Told({"source": source, **counted(episodes), "columns": found}, Group(lines, table) if found else lines)


def _about(episodes: Episodes) -> dict[str, str]:
    from tacit.data.view import sized

    spec, minutes = episodes.spec, float(episodes.lengths.sum()) / episodes.spec.fps / 60
    sources = {s: episodes.sources.count(s) for s in sorted(set(episodes.sources))}
    parts = {s or "unassigned": episodes.splits.count(s) for s in sorted(set(episodes.splits))}
    won = [s for s in episodes.successes if s is not None]
    told = {
        "episodes": f"{len(episodes):,}, of {episodes.lengths.min()} to {episodes.lengths.max()} frames",
        "time": f"{int(episodes.lengths.sum()):,} frames, {minutes:.1f} minutes at {spec.fps:g} a second",
        "pictures": "none" if spec.frame is None else sized(spec.frame),
        "state": f"{spec.state} numbers" if spec.state else "none",
        "actions": "none" if spec.space is None else f"{spec.space.kind}, {spec.space.size}",
        "labels": f"{episodes.labelled:,}",
        "tasks": f"{len(set(episodes.texts) - {None}):,}",
    }
    told |= {"sources": ", ".join(f"{k or 'unnamed'} {v:,}" for k, v in sources.items())} if len(sources) < 20 else {}
    told |= {"parts": ", ".join(f"{k} {v:,}" for k, v in parts.items())} if any(episodes.splits) else {}
    return told | ({"success": f"{sum(won):,} of {len(won):,}"} if won else {})


def prepare(
    source: Source, /, *, size: Side = None, workers: Workers = 2, engine: Engine = "local", camera: Camera = None
) -> Told:
    """Decode a dataset once, at training size, so that training only ever copies bytes.

      tacit data prepare out/data --size 64

    Args:
        source: the dataset, which keeps the decoded frames in its folder
        size: side of the pictures; as they are recorded if not given
        workers: processes that decode, on this machine or on the cluster
        engine: this machine's processes, or a Ray cluster's
        camera: which camera, where there are several
    """
    from tacit.data import cache
    from tacit.data import open as opened
    from tacit.data.view import sized

    began = time.perf_counter()
    made = cache(opened(source, camera=camera), size=size, workers=workers, engine=engine)
    seconds, where = time.perf_counter() - began, getattr(made.reader, "path", source)
    frame = made.spec.frame or (0, 0)
    facts = {"source": source, "cache": where, "size": frame, **counted(made), "seconds": seconds}
    return Told(facts, f"{where}: {counts(made)}, {sized(frame)}, in {took(seconds)}.")


def split(
    source: Source,
    /,
    *,
    held: Share = 0.1,
    seed: int = 0,
    names: tuple[str, str] = ("train", "valid"),
    again: bool = False,
) -> Told:
    """Assign every episode of a dataset to training or to validation, once and for all, by what it shows.

    No frame is moved; recordings that show the same stay together. Then: tacit train ... --part train

      tacit data split out/data --held 0.1

    Args:
        source: the dataset (LeRobotDataset v3.0)
        held: share of the episodes that is kept back
        seed: decides which
        names: of the two parts
        again: assign anew what is assigned already
    """
    from tacit.data import open as opened
    from tacit.data.partition import partition

    before = 0 if again else len(list(filter(None, opened(source, camera=None).splits)))
    episodes = partition(source, held=held, seed=seed, names=names, again=again)
    parts = {name: episodes.splits.count(name) for name in sorted(set(episodes.splits))}
    told = f"{source}: {', '.join(f'{count:,} {name}' for name, count in parts.items())}"
    if before == len(episodes):
        told += "; all were assigned before and nothing was changed (--again assigns anew)."
    else:
        share = parts.get(names[1], 0) / len(episodes)
        told += (
            f"; {100 * share:.3g} % held back of {100 * held:.3g} % asked for: the draw is by what each shows, so that "
        )
        told += "the same recordings fall on one side, now and as the set grows."
        told += f" {before:,} kept the part they had (--again assigns anew)." if before else ""
    return Told({"source": source, "parts": parts, "assigned": len(episodes) - before}, told)


def merge(sources: Several, /, *, out: Out) -> Told:
    """Put datasets together without decoding a frame; each episode's source then tells where it came from.

    What differs in cameras, rate or action space is kept apart, in folders of OUT.

      tacit data merge out/monday out/tuesday --out out/week

    Args:
        sources: the datasets (LeRobotDataset v3.0); `tacit data import` makes one of anything else
        out: the folder to write
    """
    from tacit.data.merge import merge as merged

    if not sources:
        raise here.Unknown("merge wants the datasets to put together: tacit data merge PATH PATH ... --out OUT")
    began = time.perf_counter()
    made = merged(list(sources), out)
    seconds = time.perf_counter() - began
    lines = [f"{out if len(made) == 1 else out / name}: {counts(episodes)}" for name, episodes in made.items()]
    facts = {"out": out, "seconds": seconds, "datasets": {name: counted(e) for name, e in made.items()}}
    return Told(facts, "\n".join([*lines, f"in {took(seconds)}."]))


def view(
    source: Source,
    /,
    *,
    look: OmitArgPrefixes[Seen] = Seen(),
    page: Annotated[Path, arg(metavar="FILE")] = Path("out/view.html"),
    episodes: Annotated[int, number(int, "INT", least=1)] = 12,
) -> Told:
    """Write a page with moving clips of a dataset, to look at in any browser.

      tacit data view out/data --page out/view.html

    Args:
        source: a dataset, or recordings of any known format
        page: the self-contained HTML file to write
        episodes: how many of them, evenly spread
    """
    from tacit.evaluate.gallery import gallery

    some = look.open(source)
    page.parent.mkdir(parents=True, exist_ok=True)
    shown, faults = gallery(some, page, most=episodes)
    told = _listed(f"{page}: {shown} of {len(some):,} episodes.", faults, "cannot be read")
    return Told({"source": source, "page": page, "episodes": shown, "left": faults}, told)


def _listed(
    told: str, faults: Mapping[str, str], deed: str, *, more: Mapping[str, Mapping[str, str]] | None = None
) -> str:
    """A sentence, and under it by name what could not be had and why; what only was not as asked for, by reason."""
    from tacit.data.view import summed

    lines = [told]
    for done, some in {deed: faults, **(more or {})}.items():
        damaged, unmet = summed(some)
        if some:
            lines.append(f"{len(some):,} {done}:")
            lines += [f"  {name}: {_unnamed(why, name)}" for name, why in list(damaged.items())[:SHOWN]]
            lines += [f"  and {len(damaged) - SHOWN:,} more (--json tells all)"] if len(damaged) > SHOWN else []
            lines += [f"  {line}" for line in unmet]
    return "\n".join(lines)


def _unnamed(why: str, name: str) -> str:
    """A reason without the path that begins it, where that ends in the name under which it is told."""
    path, found, rest = why.partition(name)
    return rest.strip() if found and path[-1:] in ("", "/") and rest.startswith(" ") else why


VERBS: dict[str, Callable[..., Told]] = {
    "import": bring,
    "check": check,
    "repair": repair,
    "stats": stats,
    "view": view,
    "curate": curate,
    "prepare": prepare,
    "split": split,
    "merge": merge,
    "export": export,
}
