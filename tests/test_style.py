"""The rules of style that a machine can read, over every file, and each rule shown to fail on a planted fault."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "tacit").rglob("*.py"))
HOUSE = sorted(path for folder in ("tacit", "tests", "docs", "bench") for path in (ROOT / folder).rglob("*.py"))

VAGUE = {"util", "helper", "common", "base", "core", "manager", "factory", "handler", "misc"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FIXED = {"train", "requires_grad_", "fit"}  # signatures that torch.nn.Module fixes, and that of the one loop
Function = ast.FunctionDef | ast.AsyncFunctionDef
Faults = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class File:
    """One source file as the rules see it: where it is, what it says, and its tree with each node's parents."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, ast.unparse(node.func)

    def functions(self) -> Iterator[tuple[Function, list[ast.AST]]]:
        """Every function, with what encloses it from the module down."""

        def walk(node: ast.AST, above: list[ast.AST]) -> Iterator[tuple[Function, list[ast.AST]]]:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, Function):
                    yield child, above
                yield from walk(child, [*above, child])

        return walk(self.tree, [])

    def signatures(self) -> Iterator[tuple[Function, list[ast.arg]]]:
        """Public functions whose signature is ours to choose, with the arguments that a caller may give by place."""
        for function, above in self.functions():
            owner = above[-1] if above else None
            nested = any(isinstance(node, Function) for node in above)
            names = [function.name, *(node.name for node in above if isinstance(node, ast.ClassDef))]
            private = any(name.startswith("_") and name != "__init__" for name in names)
            torch_op = isinstance(owner, ast.ClassDef) and any(ast.unparse(b).endswith("Function") for b in owner.bases)
            if nested or private or torch_op or function.name in FIXED:
                continue
            places = [*function.args.posonlyargs, *function.args.args]
            bound = isinstance(owner, ast.ClassDef) and "staticmethod" not in decorators(function)
            yield function, places[1:] if bound else places


def decorators(function: Function) -> set[str]:
    return {ast.unparse(node).split("(")[0].split(".")[-1] for node in function.decorator_list}


def words(name: str) -> set[str]:
    return {name, name.removesuffix("s"), re.sub("ies$", "y", name)}


def long_file(file: File) -> Faults:
    count = len(file.text.splitlines())
    if count > 400:
        yield 400, f"the file has {count} lines; the budget is 400. Split it where the nouns part."


def long_function(file: File) -> Faults:
    for function, _ in file.functions():
        count = function.end_lineno - function.lineno + 1  # type: ignore[operator]
        if count > 60:
            yield function.lineno, f"{function.name} has {count} lines; the budget is 60."


def vague_name(file: File) -> Faults:
    for part in Path(file.path).with_suffix("").parts[1:]:
        if words(part) & VAGUE:
            yield 1, f"{part!r} says nothing about what is inside; name the noun."


def long_name(file: File) -> Faults:
    """One word a module; a recipe is called as its paper is, which may take two."""
    letters = "[a-z0-9_]" if file.path.startswith("tacit/recipes/") else "[a-z0-9]"
    for part in Path(file.path).with_suffix("").parts[1:]:
        if not re.fullmatch(rf"[a-z]{letters}*|__init__|__main__", part):
            yield 1, f"{part!r} is not one lower-case word."


def empty_verb(file: File) -> Faults:
    for function, _ in file.functions():
        if re.match(r"_*(get|make)_", function.name):
            yield function.lineno, f"{function.name}: get_ and make_ say nothing; name the thing or the deed."


def printing(file: File) -> Faults:
    if file.path == "tacit/cli.py":
        return
    for node, name in file.calls():
        if name in ("print", "pprint", "pprint.pprint"):
            yield node.lineno, "prints; only the loop and the CLI speak, through their console."


def silent_except(file: File) -> Faults:
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        if node.type is None:
            yield node.lineno, "a bare except; name what you expect."
        elif broad and all(isinstance(line, ast.Pass | ast.Continue) for line in node.body):
            yield node.lineno, "swallows every exception without a word."
    for node, name in file.calls():
        if name.endswith("suppress") and {ast.unparse(a) for a in node.args} & {"Exception", "BaseException"}:
            yield node.lineno, "swallows every exception without a word."


def loose_zip(file: File) -> Faults:
    for node, name in file.calls():
        if name == "zip" and not any(k.arg == "strict" and ast.unparse(k.value) == "True" for k in node.keywords):
            yield node.lineno, "zip without strict=True drops the tail of the longer one."


def mutable_default(file: File) -> Faults:
    fresh = {"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "collections.deque"}
    literal = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    for function, _ in file.functions():
        for value in [*function.args.defaults, *function.args.kw_defaults]:
            called = isinstance(value, ast.Call) and ast.unparse(value.func) in fresh
            if isinstance(value, literal) or called:
                yield function.lineno, f"{function.name} has a default that all its calls would share."


def many_places(file: File) -> Faults:
    for function, places in file.signatures():
        # torch calls `forward` by place, `along` is the same over time, and every long job is called (what, data, out)
        allowed = 3 if function.name in ("forward", "along") or places[2:] and places[2].arg == "out" else 2
        if len(places) > allowed:
            names = ", ".join(a.arg for a in places)
            yield function.lineno, f"{function.name}({names}): more than two by place; put `*` after the second."


def boolean_place(file: File) -> Faults:
    for function, places in file.signatures():
        defaults = [None] * (len(places) - len(function.args.defaults)) + [*function.args.defaults][-len(places) :]
        for argument, value in zip(places, defaults[: len(places)], strict=True):
            flag = isinstance(value, ast.Constant) and isinstance(value.value, bool)
            if flag or (argument.annotation is not None and ast.unparse(argument.annotation) == "bool"):
                yield function.lineno, f"{function.name}: {argument.arg} is a boolean by place; make it keyword-only."


def unsafe_load(file: File) -> Faults:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            if {name.split(".")[0] for name in names} & UNPICKLERS:
                yield node.lineno, f"imports {', '.join(names)}, which can run code; safetensors and JSON only."
    for node, name in file.calls():
        if name in ("eval", "exec", "compile", "__import__"):
            yield node.lineno, f"{name}() runs code that nobody reviewed."
        if name in ("torch.load", "torch.save"):
            yield node.lineno, f"{name} speaks pickle; safetensors and JSON only."
        if any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords):
            yield node.lineno, "allow_pickle can run code."


def dynamic_import(file: File) -> Faults:
    if file.path == "tacit/part.py":
        return
    harmless = {"importlib.metadata", "importlib.resources"}
    for node in ast.walk(file.tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "importlib":
            names = [f"importlib.{a.name}" for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in ("importlib", "imp", "runpy") and name not in harmless:
                yield node.lineno, f"imports {name}: what is loaded by name belongs in part.py alone."


def machine_path(file: File) -> Faults:
    root = r"(?:home|work|farm|root|tmp|Users|mnt|opt|data|media|scratch)"
    for number, line in enumerate(file.text.splitlines(), 1):
        found = re.search(rf"(?<![\w.}}\])>*/:])/{root}/\w|(?<![\w.])~/\w|\b[A-Z]:\\\\?\w", line)
        if found:
            yield number, f"{found[0]!r} is a path of one machine."


def unfinished(file: File) -> Faults:
    for number, line in enumerate(file.text.splitlines(), 1):
        found = re.search(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError|NotImplemented)\b", line)
        if found and not (found[0] == "NotImplemented" and "return NotImplemented" in line):
            yield number, f"{found[0]}: finish it or leave it out."
    for function, above in file.functions():
        bases = [ast.unparse(base) for node in above if isinstance(node, ast.ClassDef) for base in node.bases]
        if any("Protocol" in base for base in bases) or decorators(function) & {"abstractmethod", "overload"}:
            continue
        last = function.body[-1]  # a docstring alone is a hook that does nothing by default, which is a decision
        if len(function.body) <= 2 and ast.unparse(last) in ("pass", "..."):
            yield function.lineno, f"{function.name} is a stub."


Rule = Callable[[File], Faults]
EVERYWHERE: tuple[Rule, ...] = (long_file, long_function)
INSIDE: tuple[Rule, ...] = (
    vague_name, long_name, empty_verb, printing, silent_except, loose_zip, mutable_default, many_places,
    boolean_place, unsafe_load, dynamic_import, machine_path, unfinished,
)  # fmt: skip


def named(rule: Rule) -> str:
    return rule.__name__


def read(path: Path) -> File:
    return File(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", [*EVERYWHERE, *INSIDE], ids=named)
def test_every_file_keeps_the_rule(rule: Rule) -> None:
    files = map(read, HOUSE if rule in EVERYWHERE else LIBRARY)
    faults = [f"{file.path}:{line}: {what}" for file in files for line, what in rule(file)]
    assert not faults, "\n" + "\n".join(faults)


BODY = "\n".join(["    x = 1"] * 60)
PLANTED: list[tuple[Rule, str, str]] = [
    (long_file, "tacit/a.py", "x = 1\n" * 401),
    (long_function, "tacit/a.py", f"def f():\n{BODY}"),
    (long_function, "tacit/a.py", f"class A:\n    def f(self):\n{BODY}".replace("\n    x", "\n        x")),
    (vague_name, "tacit/utils.py", ""),
    (vague_name, "tacit/parts/base.py", ""),
    (vague_name, "tacit/factories/conv.py", ""),
    (long_name, "tacit/data/frame_stack.py", ""),
    (long_name, "tacit/Data/frames.py", ""),
    (long_name, "tacit/recipes/Lapo.py", ""),
    (empty_verb, "tacit/a.py", "def get_batch(): return 1"),
    (empty_verb, "tacit/a.py", "class A:\n    def _make_head(self): return 1"),
    (printing, "tacit/train.py", "print('step')"),
    (silent_except, "tacit/a.py", "try:\n    f()\nexcept:\n    raise"),
    (silent_except, "tacit/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (silent_except, "tacit/a.py", "with contextlib.suppress(Exception):\n    f()"),
    (loose_zip, "tacit/a.py", "list(zip(a, b))"),
    (loose_zip, "tacit/a.py", "list(zip(a, b, strict=False))"),
    (mutable_default, "tacit/a.py", "def f(a=[]): return a"),
    (mutable_default, "tacit/a.py", "def f(*, a=dict()): return a"),
    (many_places, "tacit/a.py", "def f(a, b, c): return a"),
    (many_places, "tacit/a.py", "class A:\n    def __init__(self, a, b, c): self.a = a"),
    (many_places, "tacit/a.py", "class A:\n    @staticmethod\n    def f(a, b, c): return a"),
    (boolean_place, "tacit/a.py", "def f(a, flag=True): return a"),
    (boolean_place, "tacit/a.py", "def f(flag: bool): return flag"),
    (unsafe_load, "tacit/a.py", "import pickle"),
    (unsafe_load, "tacit/a.py", "from cloudpickle import loads"),
    (unsafe_load, "tacit/a.py", "state = torch.load(path)"),
    (unsafe_load, "tacit/a.py", "x = eval(text)"),
    (unsafe_load, "tacit/a.py", "x = np.load(path, allow_pickle=True)"),
    (dynamic_import, "tacit/cli.py", "import importlib"),
    (dynamic_import, "tacit/cli.py", "from importlib import import_module"),
    (dynamic_import, "tacit/cli.py", "import importlib.util"),
    (machine_path, "tacit/a.py", "path = '/" + "work/main/x'"),
    (machine_path, "tacit/a.py", "path = Path('/" + "tmp/cache')"),
    (machine_path, "tacit/a.py", "path = '~" + "/data'"),
    (unfinished, "tacit/a.py", "x = 1  # TO" + "DO"),
    (unfinished, "tacit/a.py", "def f():\n    raise NotImplemented" + "Error"),
    (unfinished, "tacit/a.py", "def f():\n    pass"),
    (unfinished, "tacit/a.py", "def f():\n    'What for.'\n    ..."),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED, ids=[named(rule) for rule, _, _ in PLANTED])
def test_rule_catches_what_was_planted(rule: Rule, path: str, text: str) -> None:
    assert list(rule(File(path, text)))


def test_every_rule_has_a_planted_fault() -> None:
    assert {named(rule) for rule, _, _ in PLANTED} == {named(rule) for rule in [*EVERYWHERE, *INSIDE]}


GOOD = '''
"""A module. See https://example.org/home/page and out/tmp/file, and a / tmp / b."""
import importlib.metadata
from importlib.resources import files

class _Run:
    def __init__(self, a, b, c, flag: bool): self.a = a

class A(Protocol):
    def act(self, observation, memory, *, noise: float = 0.0) -> None: ...

class B:
    def __exit__(self, kind, value, trace): return None
    def train(self, mode: bool = True): return self
    def after_step(self) -> None:
        """Slow copies and code resets, where a part has any."""
    @abstractmethod
    def loss(self, clip): ...
    def __eq__(self, other): return NotImplemented

def pairs(left, right, *, plan=Plan(), flip: bool = False, rest=()):
    try:
        model.eval()
        re.compile("a")
        return list(zip(left, right, strict=True))
    except ValueError:
        pass
'''


@pytest.mark.parametrize("rule", [*EVERYWHERE, *INSIDE], ids=named)
def test_rule_lets_good_code_pass(rule: Rule) -> None:
    assert list(rule(File("tacit/parts/pairs.py", GOOD))) == []
