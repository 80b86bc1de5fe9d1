"""The report as one HTML page that needs no network, no script and no other file, and reads well on a phone."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tacit.evaluate.interval import between, end, number, split

SERIES = 6  # colours of the page; a seventh method shares the first one's
LARGEST = 128  # pictures larger than this are halved until they fit, so that a page stays small
CLIP_BYTES = 250_000  # a moving clip above this is written again with less care
Entry = Mapping[str, Any]  # what `interval.summarise` gives: method, labels, metric, mean, low, high, n, over


@dataclass(frozen=True)
class Figure:
    """A section of the page: a title, a body in HTML and SVG, and a caption in plain text that says how to read it."""

    title: str
    body: str
    caption: str = ""


def render(
    *, title: str, headline: str, sections: Sequence[Figure], facts: Mapping[str, str] | None = None, style: str = ""
) -> str:
    """The whole page, from a list of sections, so that whoever has more to show appends to the list, and its style."""
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in (facts or {}).items())
    body = "".join(
        f"<section><h2>{escape(s.title)}</h2><div class=body>"
        + (f"<p class=caption>{escape(s.caption)}</p>" if s.caption else "")
        + f"{s.body}</div></section>"
        for s in sections
    )
    # the policy forbids what the page must never need: scripts, and anything from anywhere else
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name=color-scheme content="light dark">'
        f'<meta name=viewport content="width=device-width,initial-scale=1"><style>{STYLE}{style}</style></head><body>'
        f"<header><p class=kicker>{escape(title)}</p><h1>{escape(headline)}</h1><dl class=facts>{cells}</dl></header>"
        f"<main>{body}</main></body></html>\n"
    )


def summary(entries: Sequence[Entry], *, budgets: Sequence[int] = ()) -> Figure:
    """The table of methods by label budgets, each cell a number and a bar that shows its interval."""
    methods, columns, ends = split(entries, budgets)
    metric = str(entries[0]["metric"]) if entries else ""
    heights = [v for e in entries for v in (e["mean"], e["low"], e["high"]) if v is not None and np.isfinite(v)]
    low, high = (0.0, 1.0) if metric == "success" else (min([0.0, *heights]), max([1e-9, *heights]))
    marks = [(e["mean"] - low) / (high - low) for e in ends]
    at = {(e["method"], e["labels"]): e for e in entries}
    head = "".join(f"<th scope=col>{n:,} labels</th>" for n in columns)
    rows = ""
    for i, method in enumerate(methods):
        cells = "".join(_cell(at.get((method, n)), f"{n:,} labels", (low, high), marks) for n in columns)
        rows += f'<tr style="--c:var(--s{i % SERIES})"><th scope=row><i class=dot></i>{escape(method)}</th>{cells}</tr>'
    for entry in ends:
        cell = _cell(entry, "result", (low, high), marks) + "<td class=void></td>" * (len(columns) - 1)
        name, _, labels = end(entry).partition(", ")
        head_ = f"<th scope=row>{escape(name)} <small>{escape(labels)}</small></th>"
        rows += f'<tr class=end style="--c:var(--soft)">{head_}{cell}</tr>'
    over = sorted({f"{e['n']} {e['over']}" for e in entries if e["n"] > 1})
    caption = f"{metric.capitalize()}: the mean" + (f" and its 95 % interval over {', '.join(over)}." if over else ".")
    caption += " The grey ticks in each bar are the ends of the scale." if ends else ""
    body = f"<table class='cells matrix'><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return Figure("Result", body, caption)


def _cell(entry: Entry | None, label: str, scale: tuple[float, float], marks: Sequence[float]) -> str:
    if entry is None:
        return f"<td data-label='{escape(label)}'>–</td>"
    low, high = scale
    known = {k: entry[k] for k in ("mean", "low", "high") if entry[k] is not None and np.isfinite(entry[k])}
    place = {k: 100 * (v - low) / (high - low) for k, v in known.items()}
    range_ = f"<i style='left:{place['low']:.1f}%;right:{100 - place['high']:.1f}%'></i>" if len(place) == 3 else ""
    ticks = "".join(f"<u style='left:{100 * m:.1f}%'></u>" for m in marks)
    point = f"<b style='left:{place['mean']:.1f}%'></b>" if "mean" in place else ""
    interval = between(entry["low"], entry["high"], metric=entry["metric"])
    told = f"{number(entry['mean'], entry['metric'])}<small>{interval}</small>"
    return f"<td data-label='{escape(label)}'><span>{told}</span><span class=bar>{ticks}{range_}{point}</span></td>"


def curve(entries: Sequence[Entry], *, budgets: Sequence[int] = ()) -> Figure:
    """What each further label buys: one line a method over a logarithmic count of labels, its interval as a band."""
    methods, columns, ends = split(entries, budgets)
    metric = str(entries[0]["metric"])

    def draw(axes: Any, wide: bool) -> None:
        for i, method in enumerate(methods):
            own = [e for n in columns for e in entries if (e["method"], e["labels"]) == (method, n)]
            x, y = [e["labels"] for e in own], [e["mean"] for e in own]
            low, high = ([np.nan if e[k] is None else e[k] for e in own] for k in ("low", "high"))
            axes.fill_between(x, low, high, color=ink(i), alpha=0.16, linewidth=0, zorder=2)
            first = i == 0
            weight = {"markersize": 5, "linewidth": 2.3 if first else 1.7, "zorder": 5 if first else 4}
            axes.plot(x, y, "o-", color=ink(i), clip_on=False, **weight)
        axes.set_xscale("log")
        axes.set_xticks(columns, [f"{n:,}" for n in columns], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_xlim(columns[0] / 1.12, columns[-1] * 1.12)
        axes.set_xlabel("labelled transitions", color=GREY, fontsize=12 if wide else 11)
        if metric == "success":
            axes.set_ylim(0, 1.04)
            axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        else:  # a band from two seeds may be many times wider than all the means: it must not flatten them
            means = [e["mean"] for e in entries if np.isfinite(e["mean"])]
            room = 0.6 * (max(means) - min(means)) or 1.0
            bottom, top = axes.get_ylim()
            axes.set_ylim(max(bottom, min(means) - room), min(top, max(means) + room))
        bottom, top = axes.get_ylim()
        for near in _together(ends, within=0.06 * (top - bottom)):
            for e in near:
                axes.axhline(e["mean"], color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
            upper = near[0]["mean"] > (bottom + top) / 2  # curves rise: above there is room left, below right
            at, side, above, space = (0.01, "left", "top", -5) if upper else (0.99, "right", "bottom", 4)
            height = near[0 if upper else -1]["mean"]
            place = {"xy": (at, height), "xycoords": ("axes fraction", "data"), "ha": side, "va": above}
            offset = {"xytext": (0, space), "textcoords": "offset points"}
            named = "; ".join(map(end, near))
            axes.annotate(named, color=GREY, fontsize=12 if wide else 11, zorder=6, **place, **offset)

    dots = (f"<li style='--c:var(--s{i % SERIES})'><i class=dot></i>{escape(m)}</li>" for i, m in enumerate(methods))
    key = "".join(dots)
    caption = f"{metric.capitalize()} against the number of labelled transitions. Bands are 95 % intervals"
    caption += "; dashed lines are the ends of the scale." if ends else "."
    return Figure("What labels buy", f"<ul class=key>{key}</ul>" + plot(draw, f"{metric} by labels"), caption)


def _together(ends: Sequence[Entry], *, within: float) -> list[list[Entry]]:
    """The ends of the scale from the bottom up, those whose names would lie on each other in one group."""
    groups: list[list[Entry]] = []
    for entry in sorted(ends, key=lambda e: e["mean"]):
        if groups and entry["mean"] - groups[-1][0]["mean"] < within:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    return groups


def losses(logs: Mapping[str, Sequence[Mapping[str, Any]]], *, metric: str = "loss") -> Figure:
    """One small panel a training run: the metric as it was logged, faint, and smoothed."""
    panels = ""
    for name, rows in logs.items():
        logged = [(r["step"], r[metric]) for r in rows if r.get(metric) is not None and np.isfinite(r[metric])]
        if not logged:
            continue
        kept = np.linspace(0, len(logged) - 1, min(300, len(logged))).round().astype(int)
        x, y = np.array(logged, dtype=float)[kept].T
        width = max(1, len(y) // 15)
        padded = np.pad(y, (width, width), mode="edge")
        smooth = np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")

        def draw(axes: Any, wide: bool, x: Any = x, y: Any = y, smooth: Any = smooth) -> None:
            axes.plot(x, y, color=GREY, alpha=0.45, linewidth=1)
            axes.plot(x, smooth, color=ink(0), linewidth=1.8)
            if y.min() > 0 and y.max() > 20 * y.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter(lambda value, _: number(value))
            else:
                axes.locator_params(axis="y", nbins=3)
            axes.set_xticks([x[0], x[-1]], [f"{x[0]:,.0f}", f"{x[-1]:,.0f}"])
            axes.set_xlim(x[0], max(x[-1], x[0] + 1))

        head = f"<figcaption>{escape(name)} <small>{number(smooth[-1])}</small></figcaption>"
        panels += f"<figure>{head}{plot(draw, name, small=True)}</figure>"
    caption = f"The {metric} of each run over its steps, as logged and smoothed; on the right, where it ended."
    return Figure("Training", f"<div class=panels>{panels}</div>", caption)


def predictions(past: ArrayLike, true: ArrayLike, *, predicted: ArrayLike) -> Figure:
    """The forward model's guesses on held-out pairs beside what happened: one column a pair, on a phone one row."""
    given = [pictures(x, 4) for x in (past, true, predicted)]
    names = ("past", "true next", "predicted", "difference")
    cells = "".join(f"<h3>{name}</h3>" for name in names)
    for p, t, q in zip(*given, strict=True):
        cells += "".join(image(x, name) for x, name in zip((p, t, q, difference(t, q)), names, strict=True))
    caption = "Held-out pairs. The difference is clear where prediction and truth agree, and full at 64 levels of 255."
    return Figure("Predictions", f"<div class=grid>{cells}</div>", caption)


def effects(frame: ArrayLike, outcomes: ArrayLike, *, names: Sequence[str]) -> Figure:
    """What each latent action does to one frame: the predicted next frames in a row, and what changed."""
    start, after = pictures(frame, 3), pictures(outcomes, 4)
    cells = f"<figure>{image(start, 'start')}<figcaption>start</figcaption></figure>"
    for name, picture in zip(names, after, strict=True):
        pair = image(picture, name) + image(difference(start, picture), f"change under {name}")
        cells += f"<figure>{pair}<figcaption>{escape(name)}</figcaption></figure>"
    caption = "One frame, and the next frame predicted under each latent action; below it, what that changed."
    return Figure("Latent actions", f"<div class=strip>{cells}</div>", caption)


def filmstrip(frames: ArrayLike, *, title: str = "Acting", count: int = 8, caption: str = "") -> Figure:
    """An episode at a glance: ``count`` frames, evenly spread, from the first to the last."""
    film = pictures(frames, 4)
    steps = np.unique(np.linspace(0, len(film) - 1, min(count, len(film))).round().astype(int))
    cells = "".join(f"<figure>{image(film[t], f'step {t}')}<figcaption>{t}</figcaption></figure>" for t in steps)
    return Figure(
        title,
        f"<div class=strip>{cells}</div>",
        caption or f"An episode of {len(film) - 1} steps; the numbers count them.",
    )


def films(episodes: Mapping[str, ArrayLike], *, title: str = "Acting", fps: float = 10.0, caption: str = "") -> Figure:
    """The policies acting: one small looping clip an episode, under its name; still where motion is unwelcome."""
    cells = ""
    for name, frames in episodes.items():
        film = pictures(frames, 4)
        still = image(film[len(film) // 2], name, attribute="srcset")
        moving = f'<img alt="{escape(name)}" width={film.shape[2]} height={film.shape[1]} src="{_clip(film, fps)}">'
        picture = f"<picture><source media='(prefers-reduced-motion:reduce)' {still}>{moving}</picture>"
        cells += f"<figure>{picture}<figcaption>{escape(name)}</figcaption></figure>"
    return Figure(title, f"<div class='strip films'>{cells}</div>", caption)


STYLE = """
:root{--paper:#fbfaf7;--ink:#211f1c;--soft:#756f66;--line:#e2ded5;--wash:#f3f0e9;
--s0:#c5401a;--s1:#2a6bb0;--s2:#2d7f5e;--s3:#8753a6;--s4:#9a6f0b;--s5:#4d5b6b}
@media(prefers-color-scheme:dark){:root{--paper:#161513;--ink:#ebe7de;--soft:#9a9488;--line:#33302b;--wash:#201e1b;
--s0:#ff8157;--s1:#74b3f0;--s2:#66c39d;--s3:#c79fe3;--s4:#dfb450;--s5:#a9b8c9}}
*{box-sizing:border-box}html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:clamp(1.5rem,5vw,4.5rem) clamp(1.1rem,4vw,3rem) 5rem;max-width:74rem;
background:var(--paper);color:var(--ink);font-variant-numeric:tabular-nums;
font:16px/1.55 -apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue","Noto Sans","Liberation Sans",Arial,sans-serif}
h1{font:500 clamp(1.75rem,1.1rem + 2.6vw,3rem)/1.16 "Iowan Old Style","Palatino Nova",Palatino,"Palatino Linotype",
"URW Palladio L",Charter,Georgia,"Liberation Serif",serif;letter-spacing:-.012em;max-width:24em;margin:.35em 0 0;
text-wrap:balance}h2{font-size:1.05rem;line-height:1.4;margin:0 0 .8rem}h3{margin:0}figure,dd{margin:0}
.kicker{margin:0;color:var(--s0);font-weight:600}.facts{display:flex;flex-wrap:wrap;gap:.9rem 2.6rem;margin:2.2rem 0 0}
.facts dt,small,figcaption,thead th,h3{font-size:.82rem;line-height:1.4}.facts dd{font-weight:600}
.facts dt,small,figcaption,thead th,h3,.caption{color:var(--soft);font-weight:400}
.caption{margin:0 0 1.3rem;max-width:44rem;font-size:.95rem;text-wrap:pretty}
section{border-top:1px solid var(--line);margin-top:clamp(2rem,4vw,3.2rem);padding-top:1.3rem}
@media(min-width:62rem){section{display:grid;grid-template-columns:9.5rem minmax(0,1fr);gap:0 2.5rem}}
.dot{display:inline-block;width:.6em;height:.6em;border-radius:50%;background:var(--c);margin-right:.55em}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;list-style:none;margin:0 0 .6rem;padding:0;font-size:.95rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.6rem .9rem .6rem 0;vertical-align:top}
tbody tr{border-top:1px solid var(--line)}.plain{font-size:.92rem}.plain td:first-child{font-weight:600}
.matrix{table-layout:fixed}.matrix td>span:first-child{display:grid;align-items:baseline;white-space:nowrap;gap:.3rem;
grid-template-columns:minmax(2.9rem,max-content) 1fr}.matrix tr:first-child td>span{font-weight:600}
.end th{font-weight:400}
.bar{display:block;position:relative;height:8px;margin-top:.35rem;border-radius:4px;background:var(--wash)}
.bar *{position:absolute;top:0;bottom:0}.bar i{background:var(--c);opacity:.38;border-radius:4px}
.bar b{width:3px;margin-left:-1.5px;top:-2px;bottom:-2px;background:var(--c);border-radius:2px}
.bar u{width:1px;background:var(--soft);opacity:.7}
.plot{display:block;width:100%;height:auto;overflow:visible}.plot *{stroke-linejoin:round;stroke-linecap:butt}
.plot text{paint-order:stroke;stroke:var(--paper);stroke-width:3px}.plot.narrow{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1.6rem 2.4rem}
figcaption{margin-top:.35rem}.panels figcaption{display:flex;justify-content:space-between;gap:1em;margin:0 0 .2rem;
color:var(--ink);font-weight:600}.panels small{font-size:1em}
img{display:block;width:100%;height:auto;image-rendering:pixelated;border-radius:3px;background:var(--wash)}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(5.6rem,1fr));gap:1rem .7rem}
.strip img+img{margin-top:5px}.films{grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1.4rem}
.grid{display:grid;grid-auto-flow:column;grid-template-rows:repeat(var(--n,4),auto);grid-template-columns:5.5rem;
grid-auto-columns:minmax(0,7rem);gap:6px;align-items:center}
.stages{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.4rem 1.2rem;margin:0 0 1.8rem}
.stages dd{display:flex;align-items:center;gap:.6rem}.stages i{height:8px;min-width:2px;border-radius:4px;
background:var(--soft);opacity:.6}.pairs{columns:15rem;column-gap:2.5rem;margin:1.4rem 0;font-size:.9rem}
.pairs div{break-inside:avoid;display:flex;gap:.8rem;justify-content:space-between;padding:.25rem 0;
border-bottom:1px solid var(--line)}.pairs dt{color:var(--soft)}.pairs dd{text-align:right;overflow-wrap:anywhere}
pre{background:var(--wash);padding:.8rem 1rem;border-radius:5px;margin:0;white-space:pre-wrap;overflow-wrap:anywhere;
font:.88rem/1.5 ui-monospace,"Cascadia Mono",Menlo,Consolas,"Liberation Mono",monospace}
details{margin-top:1.2rem}summary{cursor:pointer;color:var(--soft)}
@media(max-width:44rem){.plot.wide{display:none}.plot.narrow,.cells,.cells tbody,.cells tr{display:block}
.cells thead,.void,.cells td:empty{display:none}.cells tr{padding:.8rem 0}.cells th{display:block;padding:0 0 .35rem}
.cells td{display:grid;grid-template-columns:7.2rem 1fr;gap:0 .6rem;align-items:baseline;padding:.2rem 0}
.cells td::before{content:attr(data-label);color:var(--soft);font-weight:400;font-size:.9rem}
.plain td:first-child{display:block}.plain td:first-child::before{content:none}
.matrix td{grid-template-columns:6rem 7rem 1fr}.bar{margin:0;align-self:center}
.grid{grid-auto-flow:row;grid-template-columns:repeat(var(--n,4),1fr);grid-template-rows:auto}
.films{grid-template-columns:1fr 1fr}}
"""

# --- drawing -----------------------------------------------------------------------------------------------------

GREY = "#7f7f7f"  # in the drawing; on the page it becomes the page's own quiet ink


def ink(i: int) -> str:
    """A stand-in colour that ``plot`` turns into the page's variable, so that one drawing suits light and dark."""
    return f"#5e1e5{i % SERIES}"


def plot(
    draw: Callable[[Any, bool], None], label: str, *, small: bool = False, wide: tuple[int, int] = (820, 400)
) -> str:
    """A drawing as inline SVG; a large one twice, as wide and as narrow, of which the page shows the one that fits."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    sizes = {"small": (250, 130)} if small else {"wide": wide, "narrow": (360, 320)}
    found = ""
    for name, (width, height) in sizes.items():
        settings: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": f"{label}-{name}",
            "text.parse_math": False,
            "font.size": 11 if small else 12.5,
        }
        with matplotlib.rc_context(settings):
            canvas = Canvas((width / 72, height / 72), layout="constrained")
            axes = canvas.add_subplot()
            for side, spine in axes.spines.items():
                spine.set(visible=side == "bottom", color=GREY, alpha=0.6)
            axes.grid(axis="y", color=GREY, alpha=0.22, linewidth=0.8)
            draw(axes, name == "wide")
            axes.tick_params(which="both", length=0, pad=6, colors=GREY)
            buffer = io.StringIO()
            canvas.savefig(
                buffer,
                format="svg",
                transparent=True,
                metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
            )
        found += _inline(buffer.getvalue(), label, name)
    return found


def _inline(svg: str, label: str, variant: str) -> str:
    """Strip matplotlib's SVG to what a page needs, and hand its colours and fonts over to the page's style."""
    svg = svg[svg.index("<svg") :]
    view = re.search(r'viewBox="([^"]+)"', svg)
    inner = svg[svg.index(">") + 1 :]
    inner = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>", "", inner, flags=re.S)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner).replace("xlink:href", "href")
    inner = re.sub(r"font-family:[^;\"]*;?|font: [\d.]+px [^;\"]*;?", _size, inner)
    inner = re.sub(r"#5e1e5(\d)", r"var(--s\1)", inner).replace(GREY, "var(--soft)")
    inner = re.sub(r"\s*\n\s*", " ", inner)
    return (
        f'<svg class="plot {variant}" viewBox="{view[1] if view else ""}" role=img aria-label="{escape(label)}">{inner}'
    )


def _size(match: re.Match[str]) -> str:
    size = re.match(r"font: ([\d.]+px)", match[0])
    return f"font-size:{size[1]};" if size else ""


def pictures(frames: ArrayLike, dims: int) -> NDArray[np.uint8]:
    """Frames as bytes, halved until they fit a page; floats are read as 0 to 1."""
    x = np.asarray(frames)
    if x.ndim != dims or x.shape[-1] != 3 or x.size == 0:
        wanted = "(H, W, 3)" if dims == 3 else "(N, H, W, 3), at least one frame"
        raise ValueError(f"Frames have shape {x.shape}; a picture for the page wants {wanted}, channels last.")
    if x.dtype != np.uint8:
        x = (np.clip(np.nan_to_num(x), 0, 1) * 255).round().astype(np.uint8)
    step = -(-max(x.shape[-3:-1]) // LARGEST)
    return x[..., ::step, ::step, :]


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where two frames differ, as ink on nothing: it shows on light and dark alike."""
    apart = np.abs(one.astype(int) - other.astype(int)).max(-1)
    ink = np.broadcast_to(np.array([232, 84, 44]), one.shape)
    return np.concatenate([ink, np.clip(apart * 4, 0, 255)[..., None]], axis=-1).astype(np.uint8)


def image(picture: NDArray[np.uint8], label: str, *, attribute: str = "src") -> str:
    """A picture as a tag that holds it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    data = f'{attribute}="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"'
    if attribute != "src":
        return data
    return f'<img alt="{escape(label)}" width={picture.shape[1]} height={picture.shape[0]} {data}>'


def _clip(film: NDArray[np.uint8], fps: float) -> str:
    """A looping WebP (GIF where Pillow lacks it), without loss if that is small enough."""
    from PIL import Image, features

    stride = -(-len(film) // 120)
    kind = "WEBP" if features.check("webp") else "GIF"
    for care, step in (({"lossless": True}, 1), ({"quality": 75}, 1), ({"quality": 40}, 2)):
        pictures = [Image.fromarray(frame) for frame in film[:: stride * step, ::step, ::step]]
        wait = [round(1000 * stride * step / fps)] * (len(pictures) - 1) + [900]  # a rest before it starts anew
        buffer = io.BytesIO()
        pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=wait, loop=0, **care)
        if buffer.tell() <= CLIP_BYTES:
            break
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
