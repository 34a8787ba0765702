"""The documented public names of the installed libraries, and which of them are one object.

One *name* is what a user can type (`scipy.linalg.norm`); one *object* is where its code stands
(`scipy.linalg._misc:norm`). Re-exports and assignments give one object many names. A class lists the methods
that its body defines; one without a docstring takes the text of the method that it overrides, as
`inspect.getdoc` does. These are the true duplicates of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .source_tree import Definition, Module, read_modules

DEEPEST_CHAIN = 12
Trail = tuple[str, str, Definition]  # the module that defines a name, the name there, and its definition


@dataclass(frozen=True)
class Docstring:
    """One public name and the text that `help(name)` would show."""

    name: str
    module: str
    object_id: str
    text: str


def read_docstrings() -> list[Docstring]:
    """Every documented public name, in alphabetical order."""
    modules = read_modules()
    found: dict[str, Docstring] = {}
    for module in modules.values():
        if not any(part.startswith("_") for part in module.name.split(".")):
            for entry in _documented_names(module, modules):
                found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found)]


def _documented_names(module: Module, modules: dict[str, Module]) -> Iterator[Docstring]:
    for name in _public_names(module, modules):
        trail = _resolve(module.name, name, modules)
        if trail is None:
            continue
        home, local, definition = trail
        full, object_id = f"{module.name}.{name}", f"{home}:{local}"
        if definition.text:
            yield Docstring(full, module.name, object_id, definition.text)
        for method in definition.members or ():
            text = _method_text(trail, method, modules)
            if text and not method.startswith("_"):
                yield Docstring(f"{full}.{method}", module.name, f"{object_id}.{method}", text)


def _public_names(module: Module, modules: dict[str, Module]) -> list[str]:
    """Names defined here, and imported ones where the module offers them (a package, or listed in __all__)."""
    names = {
        name
        for name, definition in module.definitions.items()
        if definition.target is None or module.is_package or name in (module.exported or ())
    }
    if module.is_package or module.exported:
        for source in module.star_imports:
            names |= _star_names(source, modules)
    return sorted(name for name in names if not name.startswith("_"))


def _star_names(source: str, modules: dict[str, Module], depth: int = 0) -> set[str]:
    """What `from source import *` brings in."""
    module = modules.get(source)
    if module is None or depth > DEEPEST_CHAIN:
        return set()
    if module.exported is not None:
        return module.exported
    return set(module.definitions).union(*(_star_names(further, modules, depth + 1) for further in module.star_imports))


def _resolve(home: str, name: str, modules: dict[str, Module], depth: int = 0) -> Trail | None:
    """Follows imports and assignments to where a name is defined; None where the trail leaves the sources."""
    module = modules.get(home)
    if module is None or depth > DEEPEST_CHAIN:
        return None
    definition = module.definitions.get(name)
    if definition is None:
        trails = (_resolve(source, name, modules, depth + 1) for source in module.star_imports)
        return next((trail for trail in trails if trail), None)
    if definition.target is None:
        return home, name, definition
    return _resolve(*definition.target, modules, depth + 1)


def _method_text(trail: Trail, method: str, modules: dict[str, Module], depth: int = 0) -> str | None:
    """The method's own docstring, or else the first that its bases have, from left to right."""
    home, _, definition = trail
    text = (definition.members or {}).get(method)
    if text or depth > DEEPEST_CHAIN:
        return text
    parents = (_resolve(home, base, modules) for base in definition.bases)
    texts = (_method_text(parent, method, modules, depth + 1) for parent in parents if parent)
    return next((text for text in texts if text), None)
