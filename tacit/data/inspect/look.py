"""The page of an inspection: its findings, and a row of pictures for each episode that was looked at, worst first."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from tacit.data.inspect.films import SLOTS, Film
from tacit.data.inspect.findings import FAIL, GRADES, PASS, Finding, brief
from tacit.data.inspect.pictures import Marks

if TYPE_CHECKING:
    from tacit.data.inspect import Inspection

SHOWN = 60  # episodes on the page: the worst, and of the others the first
POINTS = 240  # of the line that shows how much changes
COUNTS = {"episodes": "episodes", "frames": "frames", "decoded": "looked at", "fps": "frames a second"}


def page(inspection: Inspection) -> str:
    """The whole page: no script, no network, no other file, and nothing of a dataset's names but text."""
    title = f"{inspection.name or 'recordings'}: {inspection.headline}"
    facts = {COUNTS[k]: f"{v:,.10g}" for k, v in inspection.counts.items() if k in COUNTS}
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    # the policy forbids what the page must never need: scripts, and anything from anywhere else
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ordered = sorted(inspection.findings, key=lambda f: -GRADES.index(f.grade))
    listed = "".join(_finding(f, inspection) for f in ordered)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name=color-scheme content="light dark">'
        f'<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<header><p class=kicker>{escape(inspection.name or 'recordings')}</p>"
        f"<h1>{escape(inspection.headline)}</h1><dl class=facts>{cells}</dl></header>"
        f"<main><section><h2>Findings</h2><div><ul class=findings>{listed}</ul></div></section>"
        f"{_sheet(inspection)}</main></body></html>\n"
    )


def _finding(finding: Finding, inspection: Inspection) -> str:
    names = [_name(inspection, i) for i in finding.episodes]
    more = ""
    if len(names) > 1:
        more = f"<details><summary>all {len(names):,} episodes</summary><p>{escape(', '.join(names))}</p></details>"
    grade = finding.grade
    told = f"<strong>{escape(finding.check)}</strong><div>{escape(finding.words)}{more}</div>"
    return f"<li class={grade.lower()}><b>{grade}</b>{told}</li>"


def _name(inspection: Inspection, number: int) -> str:
    return inspection.names[number] if number < len(inspection.names) else f"episode {number}"


def _sheet(inspection: Inspection) -> str:
    """The contact sheet: a row an episode, worst first."""
    tags: dict[int, list[Finding]] = {}
    for finding in inspection.findings:
        if finding.grade != PASS:
            for number in finding.episodes:
                tags.setdefault(number, []).append(finding)
    by_number = {film.number: film for film in inspection.films}

    def badness(number: int) -> int:
        return sum(100 if f.grade == FAIL else 1 for f in tags.get(number, []))

    numbers = sorted({*tags, *by_number}, key=lambda i: (-badness(i), i))
    if not numbers:
        return ""
    rows = "".join(_row(inspection, i, by_number.get(i), tags.get(i, [])) for i in numbers[:SHOWN])
    caption = (
        f"{len(numbers):,} episodes, worst first"
        if len(numbers) <= SHOWN
        else f"{SHOWN} of {len(numbers):,} episodes, worst first"
    )
    caption += f"; {SLOTS} frames of each, evenly spread. Below them, how much each frame changes to the next."
    key = "".join(f"<li><i class={c}></i>{t}</li>" for c, t in KEY.items())
    body = f"<p class=caption>{caption}</p><ul class=key>{key}</ul><ol class=sheet>{rows}</ol>"
    return f"<section><h2>Episodes</h2><div>{body}</div></section>"


KEY = {
    "cut": "scene cut",
    "still": "nothing moves",
    "blank": "black or one colour",
    "frozen": "frozen",
    "lost": "cannot be read",
}


def _row(inspection: Inspection, number: int, film: Film | None, tags: list[Finding]) -> str:
    length = inspection.lengths[number] if number < len(inspection.lengths) else 0
    name = escape(_name(inspection, number))
    marks = "".join(f"<span class={f.grade.lower()}>{escape(f.check)}</span>" for f in tags)
    about = f"{length:,} frames"
    if film is None:
        body = "<p class=why>not looked at</p>"
    else:
        body = _pictures(film, name) + (_strip(film, inspection.marks.get(number)) if film.length > 1 else "")
        why = film.why or film.mute
        if why:
            good = f"{film.good} of {film.length} frames are whole. " if film.good else ""
            body += f"<p class=why>{good}{escape(brief(why, 300))}</p>"
    return f"<li><div class=head><b>{name}</b><small>{about}</small>{marks}</div>{body}</li>"


def _pictures(film: Film, name: str) -> str:
    """The frames that could be read as one picture, and an empty place for each that could not."""
    if not film.strip:
        return "<div class=film><i style='width:100%'></i></div>" if film.why else ""
    kind = "png" if film.strip.startswith(b"\x89PNG") else "jpeg"
    data = base64.b64encode(film.strip).decode()
    share = 100 * film.held / SLOTS
    empty = f"<i style='width:{100 - share:.2f}%'></i>" if film.held < SLOTS else ""
    source = f'src="data:image/{kind};base64,{data}"'
    return f"<div class=film><img alt=\"frames of {name}\" style='width:{share:.2f}%' {source}>{empty}</div>"


def _strip(film: Film, marks: Marks | None) -> str:
    """A line of how much changes, over the places that are cut, still, blank, frozen or lost."""
    last = film.length - 1
    place = 1000 / last
    shapes = ""
    if marks is not None:
        for kind, stretches in (("still", marks.still), ("blank", marks.blank), ("frozen", marks.frozen)):
            shapes += "".join(_band(kind, a * place, b * place) for a, b in stretches)
    if film.why:
        shapes += _band("lost", max(0, film.seen - 1) * place, 1000)
    if len(film.change):
        shapes += f"<polyline points='{_line(film.change, last)}'/>"
    at = [f"{t * place:.1f}" for t in (marks.cuts if marks else ())]
    shapes += "".join(f"<line class=cut x1={x} x2={x} y1=0 y2=40 />" for x in at)
    view = "viewBox='0 0 1000 40' preserveAspectRatio=none"
    return f"<svg class=line {view} role=img aria-label='change over time'>{shapes}</svg>"


def _band(kind: str, start: float, stop: float) -> str:
    return f"<rect class={kind} x={start:.1f} width={max(4.0, stop - start):.1f} y=0 height=40 />"


def _line(change: np.ndarray, last: int) -> str:
    """The change of every frame to the next, at most POINTS of them, of each stretch its largest."""
    parts: Iterable[np.ndarray] = np.array_split(change, min(POINTS, len(change)))
    high = float(np.quantile(change, 0.99)) or float(change.max()) or 1.0
    ends = np.cumsum([len(p) for p in np.array_split(change, min(POINTS, len(change)))])
    tops = [min(1.0, float(p.max()) / high) for p in parts]
    return " ".join(f"{1000 * (e - 0.5) / last:.1f},{38 - 34 * t:.1f}" for e, t in zip(ends, tops, strict=True))


STYLE = """
:root{--paper:#fbfaf7;--ink:#211f1c;--soft:#756f66;--line:#e2ded5;--wash:#f3f0e9;--pass:#2d7f5e;--warn:#9a6f0b;
--fail:#c5301a;--cut:#c5301a;--still:#b9c4d0;--blank:#211f1c;--frozen:#8753a6}
@media(prefers-color-scheme:dark){:root{--paper:#161513;--ink:#ebe7de;--soft:#9a9488;--line:#33302b;--wash:#201e1b;
--pass:#66c39d;--warn:#dfb450;--fail:#ff7a5c;--cut:#ff7a5c;--still:#47525e;--blank:#000;--frozen:#c79fe3}}
*{box-sizing:border-box}html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:clamp(1.5rem,5vw,4.5rem) clamp(1.1rem,4vw,3rem) 5rem;max-width:74rem;
background:var(--paper);color:var(--ink);font-variant-numeric:tabular-nums;
font:16px/1.55 -apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif}
h1{font:500 clamp(1.75rem,1.1rem + 2.6vw,3rem)/1.16 "Iowan Old Style","Palatino Nova",Palatino,"Palatino Linotype",
"URW Palladio L",Charter,Georgia,"Liberation Serif",serif;letter-spacing:-.012em;margin:.35em 0 0;text-wrap:balance}
h2{font-size:1.05rem;line-height:1.4;margin:0 0 .8rem}dd,ul,ol,p{margin:0;padding:0}ul,ol{list-style:none}
.kicker{color:var(--fail);font-weight:600;overflow-wrap:anywhere}.facts{display:flex;flex-wrap:wrap;gap:.9rem 2.6rem;
margin:2.2rem 0 0}.facts dt,small,summary,.caption,.key{font-size:.82rem;color:var(--soft)}.facts dd{font-weight:600}
section{border-top:1px solid var(--line);margin-top:clamp(2rem,4vw,3.2rem);padding-top:1.3rem}
@media(min-width:62rem){section{display:grid;grid-template-columns:7rem minmax(0,1fr);gap:0 2.5rem}}
.findings li{display:grid;grid-template-columns:3.6rem 8rem minmax(0,1fr);gap:.2rem 1rem;padding:.6rem 0;
border-bottom:1px solid var(--line)}.findings li:first-child{padding-top:0}.findings b{font-size:.82rem;line-height:1.9}
.pass b{color:var(--pass)}.warn b{color:var(--warn)}.fail b{color:var(--fail)}.findings .pass div{color:var(--soft)}
.findings div,.why{overflow-wrap:anywhere}.findings .pass strong{font-weight:500}
summary{cursor:pointer;margin-top:.3rem}details p{font-size:.88rem;max-height:14rem;overflow:auto}
.caption{max-width:44rem;font-size:.95rem}.key{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:.7rem 0 1.6rem}
.key i{display:inline-block;width:.95em;height:.75em;border-radius:2px;margin-right:.5em;background:var(--c)}
.key .cut{width:2px;height:1em;vertical-align:-.15em}
.cut{--c:var(--cut)}.still{--c:var(--still)}.blank{--c:var(--blank)}
.frozen{--c:var(--frozen)}.lost{--c:var(--fail)}.sheet>li{margin-bottom:1.7rem}
.head{display:flex;flex-wrap:wrap;gap:.15rem .8rem;align-items:baseline;margin-bottom:.35rem}
.head b{font-weight:600;overflow-wrap:anywhere}
.head span{font-size:.78rem;font-weight:600;
border:1px solid currentColor;border-radius:3px;padding:0 .4em;line-height:1.5}
.head .warn{color:var(--warn)}.head .fail{color:var(--fail)}
.film{display:flex;position:relative;--gap:calc(12.5% - 3px)}.film::after{content:"";position:absolute;inset:0;
background:repeating-linear-gradient(90deg,transparent 0 var(--gap),var(--paper) var(--gap) 12.5%)}
.film img{display:block;image-rendering:pixelated;background:var(--wash);min-width:0}
.film i{background:repeating-linear-gradient(135deg,var(--wash) 0 7px,var(--line) 7px 9px);min-height:3rem}
.line{display:block;width:100%;height:26px;background:var(--wash);margin-top:3px}.line rect{fill:var(--c);opacity:.85}
.line polyline{fill:none;stroke:var(--ink);stroke-width:1.2;vector-effect:non-scaling-stroke;opacity:.75}
.line .cut{stroke:var(--cut);stroke-width:2.5;vector-effect:non-scaling-stroke}.line .frozen,.line .lost{opacity:.45}
.why{color:var(--fail);font-size:.88rem;margin-top:.35rem}
@media(max-width:44rem){.findings li{grid-template-columns:3.6rem 1fr}.findings div{grid-column:1/-1}}
"""
