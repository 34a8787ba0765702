"""The installed libraries as syntax trees: which names each module defines, imports and documents.

Nothing is imported, so nothing runs. Documentation that a library attaches to its C code from Python
(`add_newdoc`) counts as that code's docstring.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.util
import inspect
import itertools
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LIBRARIES = ("numpy", "scipy", "sklearn")
SKIPPED_FOLDERS = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "ensurepip",
    "externals",
    "pydoc_data",
    "testing",
    "_examples",
}


@dataclass
class Definition:
    """A function or class, or (with `target`) a name that points at (module, name) elsewhere."""

    text: str | None = None
    target: tuple[str, str] | None = None
    bases: list[str] = field(default_factory=list)
    members: dict[str, str | None] | None = None


@dataclass
class Module:
    """One source file; `exported` is its `__all__` where that is written out."""

    name: str
    is_package: bool
    definitions: dict[str, Definition] = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)
    exported: set[str] | None = None
    attached: list[tuple[str, str, str]] = field(default_factory=list)


def read_modules() -> dict[str, Module]:
    """Every module of the standard library and of LIBRARIES by its dotted name, in the order of its path."""
    with _collector_paused():
        modules = {module.name: module for module in itertools.starmap(_parse, _source_files())}
    for module in list(modules.values()):
        for home, dotted, text in module.attached:
            _attach(modules.setdefault(home, Module(home, False)), dotted, text)
    return modules


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Syntax trees are many small objects and no garbage: looking for cycles among them takes a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _source_files() -> Iterator[tuple[Path, Path, str]]:
    """(file, path below its root, package name) for each source file."""
    roots = [("", Path(sysconfig.get_paths()["stdlib"]))]
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{library} is not installed: pip install -r demo/requirements.txt")
        roots.append((library, Path(spec.origin).parent))
    for package, root in roots:
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root)
            if SKIPPED_FOLDERS.isdisjoint(relative.parts) and not any("-" in part for part in relative.parts):
                yield path, relative, package


def _parse(path: Path, relative: Path, package: str) -> Module:
    parts = ([package] if package else []) + [part.removesuffix(".py") for part in relative.parts]
    is_package = parts[-1] == "__init__"
    module = Module(".".join(parts[:-1] if is_package else parts), is_package)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        tree = ast.parse(path.read_bytes())
    for statement in tree.body:
        _read_statement(statement, module)
    return module


def _read_statement(node: ast.stmt, module: Module) -> None:
    match node:
        case ast.If() | ast.Try():
            for inner in node.body + node.orelse:
                _read_statement(inner, module)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            module.definitions[node.name] = Definition(text=_text(node))
        case ast.ClassDef():
            functions = [inner for inner in node.body if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))]
            module.definitions[node.name] = Definition(
                text=_text(node),
                bases=[base.id for base in node.bases if isinstance(base, ast.Name)],
                members={function.name: _text(function) for function in functions},
            )
        case ast.ImportFrom():
            _read_import(node, module)
        case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=items) | ast.Tuple(elts=items)):
            module.exported = {item.value for item in items if isinstance(item, ast.Constant)}
        case ast.Assign(targets=[ast.Name(id=alias)], value=ast.Name(id=original)) if alias != original:
            module.definitions[alias] = Definition(target=(module.name, original))
        case ast.Expr(value=ast.Call(func=ast.Name(id="add_newdoc"), args=arguments)):
            _read_attached(arguments, module)


def _read_import(node: ast.ImportFrom, module: Module) -> None:
    if node.level:
        drop = node.level - (1 if module.is_package else 0)
        package = module.name.split(".")[: -drop or None]
        source = ".".join(package + ([node.module] if node.module else []))
    else:
        source = node.module or ""
    for alias in node.names:
        if alias.name == "*":
            module.star_imports.append(source)
        else:
            module.definitions[alias.asname or alias.name] = Definition(target=(source, alias.name))


def _read_attached(arguments: list[ast.expr], module: Module) -> None:
    """add_newdoc(home, name, text | (method, text)) as numpy has it; add_newdoc(name, text) as scipy.special has it."""
    try:
        values = [ast.literal_eval(argument) for argument in arguments]
    except ValueError:
        return
    if len(values) == 2:
        values.insert(0, module.name.rpartition(".")[0] + "._ufuncs")
    home, name, text = values
    if isinstance(text, tuple):
        name, text = f"{name}.{text[0]}", text[1]
    if isinstance(text, str):
        module.attached.append((home, name, inspect.cleandoc(text)))


def _attach(module: Module, dotted: str, text: str) -> None:
    name, _, method = dotted.partition(".")
    definition = module.definitions.setdefault(name, Definition())
    if method:
        definition.members = {**(definition.members or {}), method: text}
    else:
        definition.text = definition.text or text


def _text(node: ast.AST) -> str | None:
    raw = ast.get_docstring(node, clean=False)
    return inspect.cleandoc(raw) if raw else None
