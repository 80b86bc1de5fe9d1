"""The verdict as a page that needs nothing else: what it is, the checks behind it, and pictures; or several at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tacit.evaluate import page
from tacit.evaluate.interval import number
from tacit.evaluate.page import Figure
from tacit.evaluate.report import Value, duration
from tacit.evaluate.verdict.check import Check
from tacit.evaluate.verdict.exam import Exam
from tacit.evaluate.verdict.shown import figures
from tacit.evaluate.verdict.verdict import WORKING, Verdict

MARKS = {"pass": "\u2713 pass", "fail": "\u2717 FAIL", "abstain": "\u2013 abstains"}
Scale = tuple[float, float]


def sheet(verdict: Verdict, exam: Exam) -> str:
    """The page of one model: the verdict on top, then the checks, then what can be shown."""
    sections = [_next(verdict)] if verdict.command else []
    sections += [_checks(verdict), *figures(exam, verdict.checks), _made(verdict)]
    facts = {
        "verdict": verdict.name,
        "sure": _sure(verdict),
        "checks": _tally(verdict),
        "on": f"{len(exam.path):,} transitions of {verdict.data}",
    }
    return page.render(
        title=f"Verdict on {verdict.title}", headline=verdict.headline, sections=sections, facts=facts, style=STYLE
    )


def beside(verdicts: Sequence[Verdict]) -> str:
    """The page of several models: their verdicts on top, then each check across them."""
    if not verdicts:
        raise ValueError("There is no verdict to show; give at least one.")
    asked = {verdict.data for verdict in verdicts}
    facts = {"models": str(len(verdicts)), "on": next(iter(asked)) if len(asked) == 1 else f"{len(asked)} data sets"}
    sections = [_verdicts(verdicts), _across(verdicts)]
    return page.render(
        title="Latent action models side by side", headline=_together(verdicts), sections=sections, facts=facts,
        style=STYLE,
    )  # fmt: skip


def bar(check: Check, scale: Scale) -> str:
    """A number on its scale with its interval, its null and its limit; the side that is wanted is shaded."""
    value, limit = check.value, check.limit
    if value is None or value.value is None:
        return ""
    low, high = scale

    def place(x: float) -> float:
        return 100 * min(1.0, max(0.0, (x - low) / (high - low)))

    parts, told = "", [f"{value.name} is {short(value.value)}"]
    if limit is not None:
        edge = place(limit.at)
        side = f"left:{edge:.1f}%;right:0" if limit.least else f"left:0;right:{100 - edge:.1f}%"
        parts += f"<s style='{side}'></s><u class=limit style='left:{edge:.1f}%' title='wanted {limit}'></u>"
        told.append(f"wanted {limit}")
    if check.null is not None:
        name = f"null: {short(check.null)}, {escape(check.against, quote=True)}"
        parts += f'<u class=null style="left:{place(check.null):.1f}%" title="{name}"></u>'
        told.append(f"null {short(check.null)}")
    if value.low is not None and value.high is not None:
        left, right = place(value.low), 100 - place(value.high)
        parts += f"<i style='left:{left:.1f}%;right:{right:.1f}%'></i>"
        told.insert(1, f"between {short(value.low)} and {short(value.high)}")
    parts += f"<b style='left:{place(value.value):.1f}%'></b>"
    ends = f"<small class=ends><span>{short(low)}</span><span>{short(high)}</span></small>"
    return f'<div class="bar check" role=img aria-label="{escape(", ".join(told))}">{parts}</div>{ends}'


def span(checks: Sequence[Check]) -> Scale:
    """A scale on which all these numbers, their nulls and limits have room: 0 to 1 where that holds them."""
    marks, reach = [0.0], []
    for check in checks:
        value = check.value
        if value is None or value.value is None:
            continue
        marks += [value.value, *([check.null] if check.null is not None else [])]
        marks += [check.limit.at] if check.limit is not None else []
        reach += [v for v in (value.low, value.high) if v is not None]
    low, high = min(marks), max(marks)
    room = 0.5 * (high - low)  # for intervals; one that is far wider than all else is cut, not all else flattened
    low, high = max(low - room, min([low, *reach])), min(high + room, max([high, *reach]))
    low = 0.0 if low > -0.05 * high else low  # as good as 0
    if low == 0 and high <= 1.0:
        return 0.0, 1.0
    step = 10 ** math.floor(math.log10(high - low or 1.0)) / 2
    return math.floor(low / step) * step, (math.ceil(high / step) or 1) * step


def _checks(verdict: Verdict) -> Figure:
    """The table of one model's checks; on a phone a card each."""
    heads = ("check", "is", "", "against", "wanted")
    head = "".join(f"<th scope=col>{name}</th>" for name in heads)
    rows = "".join(_row(check) for check in verdict.checks)
    body = f"<table class='cells checks'><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    caption = (
        "In each bar the stroke is the number and the band around it its 95 % interval; the dotted line is what it "
        "is set against, the firm one its limit, and the shaded side is the wanted one."
    )
    return Figure("Checks", body, caption)


def _row(check: Check) -> str:
    title = f"<b>{check.code}</b> {escape(check.name)}"
    head = f"<th scope=row>{_mark(check)}<span>{title}</span><small>{escape(check.question)}</small></th>"
    value = check.value
    if value is None or value.value is None:
        why = escape(check.note or (value.note if value else "") or "it cannot be told here")
        return f"<tr class={check.outcome}>{head}<td colspan=4 class=why><small>{why}</small></td></tr>"
    cells = [
        ("is", f"{_number(value)}<small>{escape(value.name)}</small>"),
        ("", bar(check, span([check]))),
        ("against", "" if check.null is None else f"{short(check.null)}<small>{escape(check.against)}</small>"),
        ("wanted", f"{check.limit}<small>{escape(check.limit.why)}</small>" if check.limit else ""),
    ]
    told = "".join(f"<td data-label='{name}'>{f'<div>{cell}</div>' if cell else ''}</td>" for name, cell in cells)
    more = f"<p>{escape(check.note[0].upper() + check.note[1:])}.</p>" if check.note else ""
    if check.more:
        plural = "number" if len(check.more) == 1 else "numbers"
        more += f"<details><summary>{len(check.more)} more {plural}</summary>{_listed(check.more)}</details>"
    row = f"<tr class={check.outcome}>{head}{told}</tr>"
    return row + (f"<tr class=more><td></td><td colspan=4>{more}</td></tr>" if more else "")


def _mark(check: Check) -> str:
    return f"<span class='mark {check.outcome}'>{MARKS[check.outcome]}</span>"


def short(value: float | None) -> str:
    """A number as it is worth reading beside limits of a tenth or so: nothing below a thousandth."""
    return number(value if value is None else round(value, 3) + 0.0)


def _number(value: Value) -> str:
    apart = ""
    if value.low is not None and value.high is not None:
        apart = f" <small class=near>{short(value.low)} to {short(value.high)}</small>"
    return f"<strong>{short(value.value)}</strong>{apart}"


def _listed(values: Sequence[Value]) -> str:
    rows = ""
    for value in values:
        note = f"<small> {escape(value.note)}</small>" if value.note else ""
        rows += f"<div><dt>{escape(value.name)}{note}</dt><dd>{_number(value)}</dd></div>"
    return f"<dl class=pairs>{rows}</dl>"


def _next(verdict: Verdict) -> Figure:
    return Figure("What to try", f"<pre>{escape(verdict.command)}</pre>", verdict.advice)


def _made(verdict: Verdict) -> Figure:
    facts = {"format": str(verdict.plain()["format"]), "time": duration(verdict.seconds)}
    facts |= {f"print of {name}": told for name, told in verdict.fingerprint.items()}
    cells = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())
    return Figure("How it was made", f"<dl class=pairs>{cells}</dl>")


def _sure(verdict: Verdict) -> str:
    return f"{100 * verdict.confidence:.0f}\u202f%"


def _tally(verdict: Verdict) -> str:
    outcomes = [check.outcome for check in verdict.checks]
    named = {"pass": "passed", "fail": "failed", "abstain": "abstained"}
    return ", ".join(f"{outcomes.count(o)} {word}" for o, word in named.items() if o in outcomes)  # type: ignore[arg-type]


def _together(verdicts: Sequence[Verdict]) -> str:
    """All verdicts in a sentence."""
    if len(verdicts) <= 3:
        told = [f"{v.title} {'has' if v.name == 'not enough data' else 'is'} {v.name}" for v in verdicts]
    else:
        sound = [v.title for v in verdicts if v.name == WORKING]
        named = f": {', '.join(sound)}" if sound else ""
        told = [f"{len(sound)} of {len(verdicts)} models {'is' if len(sound) == 1 else 'are'} working{named}"]
    apart = len({tuple(sorted(v.fingerprint.items())) for v in verdicts}) > 1
    told += ["they were asked about different episodes, so their numbers are no contest"] if apart else []
    sentence = "; ".join(told)
    return f"{sentence}."


def _verdicts(verdicts: Sequence[Verdict]) -> Figure:
    cells = ""
    for verdict in verdicts:
        outcome = "pass" if verdict.name == WORKING else "fail"
        advice = f"<p>{escape(verdict.advice)}</p><pre>{escape(verdict.command)}</pre>" if verdict.command else ""
        cells += (
            f"<article><h3>{escape(verdict.title)}</h3><span class='mark {outcome}'>{escape(verdict.name)}</span>"
            f"<p><strong>{escape(verdict.headline)}</strong></p>{advice}"
            f"<small>{_sure(verdict)} sure; {_tally(verdict)}; on {escape(verdict.data)}</small></article>"
        )
    told = "The verdict on each model, and what to try next."
    return Figure("Verdicts", f"<div class=verdicts>{cells}</div>", told)


def _across(verdicts: Sequence[Verdict]) -> Figure:
    """Checks by models. A row has one scale wherever its models were asked for the same number."""
    codes = list(dict.fromkeys(check.code for verdict in verdicts for check in verdict.checks))
    head = "".join(f"<th scope=col>{escape(verdict.title)}</th>" for verdict in verdicts)
    rows = ""
    for code in codes:
        given = [next((c for c in verdict.checks if c.code == code), None) for verdict in verdicts]
        known = [c for c in given if c is not None]
        measured = [c for c in known if c.value is not None and c.value.value is not None]
        alike = len({_asked(c) for c in measured}) == 1
        asked = f"<small>{escape(_asked(measured[0]))}</small>" if alike else ""
        rows += f"<tr><th scope=row><b>{code}</b> {escape(known[0].name)}"
        rows += f"<small>{escape(known[0].question)}</small>{asked}</th>"
        for verdict, check in zip(verdicts, given, strict=True):
            cell = _cell(check, span(measured) if alike else None)
            rows += f'<td data-label="{escape(verdict.title)}">{cell}</td>'
        rows += "</tr>"
    body = f"<div class=wide><table class='cells across' style='--m:{len(verdicts)}'><thead><tr><td></td>{head}</tr>"
    told = (
        "Each check across the models, on one scale where they were asked for the same number; the dotted line is what "
        "it is set against, the firm one its limit, and the shaded side is the wanted one."
    )
    return Figure("Checks", f"{body}</thead><tbody>{rows}</tbody></table></div>", told)


def _asked(check: Check) -> str:
    """Which number a check came to, and what was wanted of it."""
    name = check.value.name if check.value else ""
    return f"{name}; wanted {check.limit}" if check.limit else name


def _cell(check: Check | None, scale: Scale | None) -> str:
    """One check of one model; where it has no common scale it says which number it is."""
    if check is None:
        return "<div>–</div>"
    if check.value is None or check.value.value is None:
        return f"<div>{_mark(check)}<small>{escape(check.note)}</small></div>"
    named = "" if scale else f"<small>{escape(_asked(check))}</small>"
    drawn = bar(check, scale or span([check]))
    return f"<div class={check.outcome}>{_mark(check)} {_number(check.value)}{drawn}{named}</div>"


STYLE = """
.pass{--c:var(--s2)}.fail{--c:var(--s0)}.abstain{--c:var(--soft)}.mark{display:inline-block;padding:0 .55em;
border:1px solid var(--c);border-radius:1em;color:var(--c);white-space:nowrap;font-size:.78rem;line-height:1.55;
font-weight:600}.mark.fail{background:var(--c);color:var(--paper)}.mark.abstain{border-color:transparent;padding:0;
font-weight:400}.checks small,.across small{display:block}.checks small.near,.across small.near{display:inline-block}
.checks tbody th{font-weight:400;width:27%}.checks th .mark{float:right;margin-left:.6em}.checks th b,.across th b{
color:var(--soft);font-weight:400}.checks th>span:not(.mark){font-weight:600}.across tbody th{font-weight:600}
.checks td:nth-of-type(1){width:19%}.checks td:nth-of-type(2){width:22%}.checks td:nth-of-type(3){width:15%}
.checks td:last-child{padding-right:0}.checks .more{border:0}.checks .more td{padding:0 0 .8rem;font-size:.88rem}
.checks tr:has(+.more)>*{padding-bottom:.25rem}.more p{margin:0;color:var(--soft)}.more details{margin:.3rem 0 0}
.more .pairs{margin:.5rem 0;columns:21rem}.why{font-style:normal}.pairs small{font-size:.9em}.bar.check{height:12px;
margin:.45rem 0 0;border-radius:3px;overflow:visible}.bar.check s{background:var(--s2);opacity:.13;border-radius:3px}
.bar.check i{top:3px;bottom:3px;border-radius:2px}.bar.check .limit{width:2px;margin-left:-1px;top:-3px;bottom:-3px;
background:var(--ink);opacity:.75}.bar.check .null{width:0;margin-left:-1px;top:-3px;bottom:-3px;opacity:1;
background:none;border-left:2px dotted var(--soft)}.bar.check b{width:4px;margin-left:-2px}small.ends{display:flex;
justify-content:space-between;font-size:.72rem;margin-top:3px}.over{position:relative}.over img+img{margin-top:3px}
.scenes{display:grid;gap:6px;align-items:center;grid-template-columns:6.5rem repeat(var(--n),minmax(0,6.5rem))}
.middling{max-width:40rem}.single{max-width:46rem}.turn{display:flex;gap:.7rem;align-items:center;margin:0 0 .8rem}
.wheel{width:1.9rem;height:1.9rem;border-radius:50%;flex:none}.verdicts{display:grid;
grid-template-columns:repeat(auto-fit,minmax(min(17rem,100%),1fr));gap:1.2rem 2.2rem}.verdicts article{
border-left:3px solid var(--line);padding-left:1rem;min-width:0}.verdicts p{margin:.5rem 0;font-size:.95rem}
.verdicts h3{font-size:1rem;color:var(--ink);font-weight:600;margin-bottom:.3rem}.verdicts pre{margin:.5rem 0}.across{
table-layout:fixed;min-width:calc(var(--m)*8.6rem + 14rem)}.across td{padding-right:1.4rem}.wide{overflow-x:auto}
.across thead td{width:14rem}.across tbody th{position:sticky;left:0;background:var(--paper);z-index:1}
@media(max-width:44rem){.cells.checks td,.cells.checks .why{padding:.25rem 0}.cells.checks tbody th{width:auto}
.cells.checks td{width:auto;grid-template-columns:4.4rem minmax(0,1fr)}.cells.checks .why,.cells.checks .more td{
display:block}.cells.checks .why::before,.cells.checks .more td::before{content:none}.cells.checks tr.more{
padding:0 0 .6rem}.across{min-width:0}.wide{overflow:visible}.cells.across td{
grid-template-columns:5.5rem minmax(0,1fr);padding:.45rem 0}.scenes{grid-template-columns:repeat(var(--n),1fr);
gap:4px}.scenes h3{grid-column:1/-1;margin-top:.4rem}.grid{align-items:start}
.panels{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:1.2rem}.grid h3{font-size:.72rem;
line-height:1.25;align-self:end;overflow-wrap:anywhere;hyphens:auto}
.cells.checks .more td:empty{display:none}}
"""
