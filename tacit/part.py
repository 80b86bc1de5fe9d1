"""``Part``: a module that remembers how it was built, so that a folder of JSON and safetensors is the whole of it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import math
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tacit.clip import Clip, Space

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PARTIAL = ".partial"  # the end of every temporary name


class Part(nn.Module):
    """Everything trainable: it has a loss, may act after a step, and saves and loads without running foreign code."""

    arguments: Mapping[str, Any] = MappingProxyType({})  # what the constructor was given
    seen: frozenset[str] = frozenset()  # prints of every episode that any of this was trained on

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def loss(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        """The number to make small, and the named numbers to watch."""
        raise TypeError(f"{type(self).__name__} has no loss of its own; train the model that it is a part of.")

    def after_step(self) -> None:
        """What follows an optimiser step: slow copies and code resets. By default, what the inner parts want."""
        for child in self.children():
            for part in _outermost(child):
                part.after_step()

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # of a model this is its loss; an inner part has its own
        return self.loss(*args, **kwargs)

    if TYPE_CHECKING:  # what a module holds is a tensor or a module, and which of them its constructor says

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    @property
    def device(self) -> torch.device:
        tensor = next((t for t in (*self.parameters(), *self.buffers())), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    def save(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors: both are whole on the disk before either takes its place."""
        folder = Path(folder)
        seen = frozenset().union(*(part.seen for part in self.modules() if isinstance(part, Part)))
        text = json.dumps({**config(self), "seen": sorted(seen)}, indent=2, allow_nan=False) + "\n"
        about = {"config": _print(text)}  # lest files of two saves be read together; two notes would have no order
        folder.mkdir(parents=True, exist_ok=True)
        place(
            {
                folder / WEIGHTS: lambda path: store(self.state_dict(), path, about=about),
                folder / CONFIG: lambda path: Path(path).write_text(text, encoding="utf-8"),
            }
        )
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, classes: Sequence[type[Part]] = ()) -> Self:
        """Rebuild the part saved in ``folder``; name your own classes in ``classes``, all others are tacit's."""
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"{folder} holds no {name}; give a folder that `Part.save` wrote, such as a finished run."
                )
        try:
            text = (folder / CONFIG).read_text(encoding="utf-8")
            told = json.loads(text)
            seen = frozenset(map(str, told.pop("seen")))
            part = _built(told, {name: c for c in classes for name in (_name(c), c.__qualname__)})
        except BROKEN as error:
            raise ValueError(f"{folder / CONFIG} is not a config that tacit wrote: {error}") from error
        if not isinstance(part, cls):
            raise ValueError(f"{folder} holds a {type(part).__name__}; wanted a {cls.__name__}.")
        try:
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                about = file.metadata() or {}
                part.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder / WEIGHTS} does not fit {type(part).__name__}: {error}") from error
        if about.get("config", _print(text)) != _print(text):
            raise ValueError(
                f"{folder / CONFIG} and {WEIGHTS} are not of one save; save the part again, or copy both files."
            )
        part.remember(seen)
        return part.eval()

    def remember(self, prints: frozenset[str]) -> None:
        """Note what this part was trained on, in it and in all that it holds: an inner part may be taken out."""
        for part in self.modules():
            if isinstance(part, Part):
                part.seen = part.seen | prints


# What may be raised while a part is built from a config that is none.
BROKEN: tuple[type[Exception], ...] = (
    json.JSONDecodeError, UnicodeDecodeError, RecursionError, RuntimeError, MemoryError,
    TypeError, LookupError, AttributeError, ArithmeticError,
)  # fmt: skip


def config(part: Part) -> dict[str, Any]:
    """How to build ``part`` again: its class and what its constructor was given, as JSON can say it."""
    told: dict[str, Any] = _plain(part)
    return told


def printed(part: Part) -> str:
    """A hash of what ``part`` computes: how it is built, and every weight."""
    digest = hashlib.blake2b(json.dumps(config(part)).encode(), digest_size=16)
    for name, tensor in sorted(part.state_dict().items()):
        value = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(
            f"{name} {value.dtype} {tuple(tensor.shape)}".encode() + value.view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def store(tensors: Mapping[str, Tensor], path: str, *, about: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, into this very file: the library goes by way of a name that kills leave behind."""
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    Path(path).write_bytes(save(own, metadata=about))


def write(path: Path, put: Any) -> None:
    """Call ``put`` with a temporary name beside ``path``, then move it there: readers never see half a file."""
    place({path: put})


def place(files: Mapping[Path, Callable[[str], Any]]) -> None:
    """Write several files under temporary names, and move them in one after the other once all are on the disk."""
    staged: dict[Path, str] = {}
    try:
        for path, put in files.items():
            handle, staged[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
            os.close(handle)
            put(staged[path])
            with open(staged[path], "rb") as file:
                os.fsync(file.fileno())
            os.chmod(staged[path], 0o644)
        for path, temporary in staged.items():
            os.replace(temporary, path)
    except BaseException:
        for temporary in staged.values():
            Path(temporary).unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in files}:
        _sync(folder)


def sweep(folder: Path) -> None:
    """Delete what a killed process was writing into ``folder``; call it only where nobody else is writing."""
    for left in filter(Path.is_file, folder.glob(f".*{PARTIAL}")):
        left.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the names in ``folder`` outlast a power cut too."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _print(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _outermost(module: nn.Module) -> list[Part]:
    """The parts nearest to the surface: a plain container is looked through, a part answers for its own inside."""
    if isinstance(module, Part):
        return [module]
    return [part for child in module.children() for part in _outermost(child)]


def _recording(build: Any) -> Any:
    signature = inspect.signature(build)

    @functools.wraps(build)
    def __init__(self: Part, *args: Any, **kwargs: Any) -> None:
        if "arguments" not in self.__dict__:  # the outermost constructor is the one the caller wrote
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(list(bound.arguments.items())[1:])
            nn.Module.__init__(self)
            object.__setattr__(self, "arguments", given)
        build(self, *args, **kwargs)

    return __init__


def _name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _plain(value: Any) -> Any:
    """``value`` as JSON, or a clear refusal."""
    if isinstance(value, Part):
        return {"part": _name(type(value)), "arguments": {k: _plain(v) for k, v in value.arguments.items()}}
    if isinstance(value, Space):
        return {"space": [value.kind, value.size, _plain(value.low), _plain(value.high), list(value.names)]}
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}  # JSON has no word for infinity
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _plain(v) for k, v in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"A Part cannot be saved with an argument of type {type(value).__name__}; use numbers, text, parts and spaces."
    )


def _built(value: Any, classes: dict[str, type[Part]]) -> Any:
    if isinstance(value, list):
        return tuple(_built(v, classes) for v in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"space"}:
        kind, size, low, high, names = value["space"]
        return Space(kind, size, _built(low, classes), _built(high, classes), tuple(names))
    if set(value) == {"float"}:
        return float(value["float"])
    if set(value) == {"dict"}:
        return {k: _built(v, classes) for k, v in value["dict"].items()}
    if set(value) != {"part", "arguments"}:
        raise KeyError(f"unknown entry with keys {sorted(value)}")
    name = value["part"]
    if not name.startswith("tacit."):  # yours: what was written in a script is __main__'s there and not elsewhere
        name = name if name in classes else name.partition(":")[2]
    cls = classes.get(name) or _own(value["part"])
    return cls(**{k: _built(v, classes) for k, v in value["arguments"].items()})


def _own(name: str) -> type[Part]:
    """Find one of tacit's own classes; nothing outside the package is ever imported on a file's word."""
    module, _, qualified = name.partition(":")
    words = (*module.split("."), qualified)
    plain = all(word.isidentifier() and not word.startswith("__") for word in words)  # importing __main__ would run it
    if not module.startswith("tacit.") or not plain:
        raise ValueError(
            f"Refusing to load {name!r}: only tacit's own parts are loaded. Pass classes=[...] for your own."
        )
    try:
        cls = ours(module, qualified)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"This version of tacit has no part {name!r}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Part)) or cls.__module__ != module:
        raise ValueError(f"Refusing to load {name!r}: it is not a part.")
    return cls


def ours(module: str, name: str) -> Any:
    """What one of tacit's own modules calls ``name``: the only import by a name that is not written in the code."""
    if not module.startswith("tacit."):
        raise ImportError(f"{module} is none of tacit's own modules.")
    return getattr(importlib.import_module(module), name)


def function(path: str | Path, name: str) -> Callable[..., Any]:
    """A function of a user's own file, which may import what lies beside it."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; wanted FILE.py:FUNCTION.")
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        found = runpy.run_path(str(file), run_name=file.stem)
    finally:
        sys.path.pop(0)
    own = {k: v for k, v in found.items() if callable(v) and getattr(v, "__module__", "") == file.stem}
    if name not in own:
        known = sorted(k for k in own if not k.startswith("_"))
        raise ValueError(f"{file} has no function {name!r}; it has {', '.join(known) or 'none'}.")
    return own[name]  # type: ignore[no-any-return]
