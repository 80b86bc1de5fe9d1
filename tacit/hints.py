"""What may be done next with what was trained: a command that works on it as it is, or else a line of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tacit import info as here
from tacit.data.episodes import Episodes
from tacit.policies.instructed import Instructed
from tacit.policies.joystick import Joystick
from tacit.policies.policy import Policy


def onward(model: Any, out: Path, *, data: Path, seen: Episodes, size: int | None = None, held: float = 0.0) -> str:
    """The next step after a model of ``seen``, which lie at ``data``, was trained into ``out``."""
    if isinstance(model, Policy):
        return _acting(model, out, data=data)
    if isinstance(model, Joystick):
        scene = "state=state" if model.encoder is None else "frames=frames"
        stick = f"Part.load({str(out)!r}).act(Clip({scene}, text=('what is wanted',)), z)"
        return f"Next, in Python: {stick}, where z says how a person holds its {model.dim} axes, from -1 to 1."
    return _learnt(model, out, data=data, seen=seen, size=size) + (
        f"\nIs it any good? tacit check {out} --data {data}" if held else ""
    )


def _learnt(model: Any, out: Path, *, data: Path, seen: Episodes, size: int | None) -> str:
    """After latent actions: a policy that follows them; where none can, the latents themselves."""
    if model.of != "frames" or seen.spec.space is None:  # follow acts by pictures, and asks labels what latents mean
        return f"Next: tacit label {out} --data {data} --out out/labelled"
    told = f"Next: tacit train follow {out} --data {data} --out out/policy"
    told += f" --size {size}" if size else ""
    told += " --source expert" if {"expert"} < set(seen.sources) else ""  # what others tried out is not to be cloned
    return told + (" --encoder MODEL" if model.encoder is None else "")  # lapo has none to see with


def _acting(policy: Policy, out: Path, *, data: Path) -> str:
    """After a policy: where it can act, and who tells it what to do."""
    staged = (out / "policy").is_dir()  # a run of several stages, of which the policy is the last
    loaded = f"Part.load({str(out / 'policy' if staged else out)!r})"
    try:
        here.environment(here.recorded(str(data))[0])
        told = f"Next: tacit evaluate {out} --env {data}"
    except here.Unknown:  # brought from elsewhere
        told = f"Next: tacit evaluate {out} --env ENV, by the name of an environment of tacit or Gymnasium; "
        told += f"or in Python: {loaded}.act(observation, memory)"
    if isinstance(policy, Instructed):
        said = "" if policy.language is None else "--text 'what is wanted', or "
        told += f"\nWhat it is to do: {said}a video, in Python: {loaded}.shown(clip).save('out/shown')"
    return told
