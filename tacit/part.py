"""``Part``: a module that remembers how it was built, so that a folder of JSON and safetensors is the whole of it."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tacit.clip import Clip, Space

CONFIG, WEIGHTS = "config.json", "model.safetensors"


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

    def forward(self, clip: Clip) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(clip)

    @property
    def device(self) -> torch.device:
        tensor = next((t for t in (*self.parameters(), *self.buffers())), None)
        return tensor.device if tensor is not None else torch.device("cpu")

    def save(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors; each file appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state_dict().items()}
        write(folder / WEIGHTS, lambda path: save_file(tensors, path))
        text = json.dumps({**_plain(self), "seen": sorted(self.seen)}, indent=2, allow_nan=False)
        write(folder / CONFIG, lambda path: Path(path).write_text(text + "\n"))
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, classes: Sequence[type[Part]] = ()) -> Self:
        """Rebuild the part saved in ``folder``; name your own classes in ``classes``, all others are tacit's."""
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}; give a folder that `Part.save` wrote, such as a finished run.")
        try:
            config = json.loads((folder / CONFIG).read_text())
            seen = frozenset(config.pop("seen"))
            part = _built(config, {_name(c): c for c in classes})
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG} is not a config that tacit wrote: {error}") from error
        if not isinstance(part, cls):
            raise ValueError(f"{folder} holds a {type(part).__name__}; wanted a {cls.__name__}.")
        try:
            part.load_state_dict(load_file(folder / WEIGHTS))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{folder / WEIGHTS} does not fit {type(part).__name__}: {error}") from error
        part.seen = seen
        return part.eval()


def write(path: Path, put: Any) -> None:
    """Call ``put`` with a temporary name beside ``path``, then move it there: readers never see half a file."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        put(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
        return {"space": [value.kind, value.size, value.low, value.high, list(value.names)]}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {"dict": {k: _plain(v) for k, v in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A Part cannot be saved with an argument of type {type(value).__name__}; use numbers, text, parts and spaces.")


def _built(value: Any, classes: dict[str, type[Part]]) -> Any:
    if isinstance(value, list):
        return tuple(_built(v, classes) for v in value)
    if not isinstance(value, dict):
        return value
    if set(value) == {"space"}:
        kind, size, low, high, names = value["space"]
        return Space(kind, size, low, high, tuple(names))
    if set(value) == {"dict"}:
        return {k: _built(v, classes) for k, v in value["dict"].items()}
    if set(value) != {"part", "arguments"}:
        raise KeyError(f"unknown entry with keys {sorted(value)}")
    cls = classes.get(value["part"]) or _own(value["part"])
    return cls(**{k: _built(v, classes) for k, v in value["arguments"].items()})


def _own(name: str) -> type[Part]:
    """Find one of tacit's own classes; nothing outside the package is ever imported on a file's word."""
    module, _, qualified = name.partition(":")
    if not module.startswith("tacit.") or not all(word.isidentifier() for word in (*module.split("."), qualified)):
        raise ValueError(f"Refusing to load {name!r}: only tacit's own parts are loaded. Pass classes=[...] for your own.")
    try:
        cls = getattr(importlib.import_module(module), qualified)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"This version of tacit has no part {name!r}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Part)) or cls.__module__ != module:
        raise ValueError(f"Refusing to load {name!r}: it is not a part.")
    return cls
