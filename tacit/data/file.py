"""What every format's file is handled with: extras that may be missing, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def need(package: str, *, extra: str = "formats", reading: str) -> None:
    """Refuse to go on without an optional package, naming what installs it."""
    try:
        version(package)
    except PackageNotFoundError as error:
        raise ImportError(f'{reading} takes the package {package}: pip install "tacit[{extra}]".') from error


def apart(source: Path, out: Path) -> None:
    """Refuse to write into what is read, or around it: the next reading would find there what was written."""
    one, two = source.resolve(), out.resolve()
    if one == two or one in two.parents or two in one.parents:
        raise ValueError(f"{out} and {source} lie one in the other; what is read is never touched; give another place.")


@contextlib.contextmanager
def placed(path: Path) -> Iterator[None]:
    """Have an error of the system that names no file, a full disk's say, name the place that was being written."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write beside ``path``, put there at one stroke when all is done; nothing is left where it failed."""
    if path.exists():
        raise FileExistsError(f"{path} exists already; give another path, or remove it.")
    staged = path.with_name(f".{path.name}.partial")
    with placed(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(staged)  # of a process that was killed
        try:
            yield staged
            staged.rename(path)
        finally:
            _remove(staged)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
