# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
A checkpoint that loads without this package, by `trust_remote_code=True`: its classes as files beside the weights.

Diffusers copies one file per class and nothing that the file imports from its neighbours. So each file is put together
from the definitions that its class needs, word for word as they stand in this package.
"""

import ast
import importlib
import inspect
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from diffusers import DiffusionPipeline

from .. import __version__
from ..configuration import write_atomically


PACKAGE = __name__.split(".")[0]
HEADER = """\
# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
# Put together from {package} {version}. The definitions are those of these modules:
{modules}
\"\"\"`{title}` as one file, for users without {package}, by `trust_remote_code=True`.\"\"\"

from __future__ import annotations

"""
# What makes no sense without the package: Diffusers would save only half of the components.
PACKAGE_ONLY = ("save_pretrained", "push_to_hub")


def write_remote_code(folder: str | Path) -> None:
    """
    Add to a saved pipeline the source of its classes, and name these files in `model_index.json`.

    Args:
        folder (`str` or `Path`): What `ZoomDiffPipeline.save_pretrained` wrote.
    """
    folder = Path(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    package = importlib.import_module(PACKAGE)
    for name, entry in index.items():
        if isinstance(entry, list) and entry[0] == PACKAGE:
            index[name] = _write_class(folder / name, getattr(package, entry[1]))
    index["_class_name"] = _write_class(folder, getattr(package, index["_class_name"]))
    write_atomically(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def _write_class(folder: Path, public: type) -> list[str]:
    """Write the file of one class and return what the index calls it: [file without ending, class]."""
    stem = public.__module__.rsplit(".", 1)[-1]
    write_atomically(folder / f"{stem}.py", single_file(public))
    return [stem, public.__name__]


def single_file(public: type) -> str:
    """
    Return the source of one file that defines a class of this package and imports nothing else from the package.

    A pipeline's methods to save and upload, and those that import from the package while they run, only say that they
    need the package. Annotations of the class's own arguments are left out: Diffusers would compare them with the
    classes of the other files.

    Raises:
        ValueError: If two modules define the same name differently, or a function imports from the package.
    """
    definitions = _needed(public)
    imports, texts = set(), {}
    for module, name in definitions:
        text = module.text(name, of_pipeline=name == public.__name__ and issubclass(public, DiffusionPipeline))
        if re.search(r"^ +from \.", text, flags=re.MULTILINE):
            raise ValueError(f"{name!r} imports from the package while it runs; {public.__name__} needs it.")
        if texts.setdefault(name, text) != text:
            raise ValueError(f"{name!r} has two meanings among the modules that {public.__name__} needs.")
        imports |= {line for used, line in module.imports.items() if re.search(rf"\b{used}\b", text)}
    modules = dict.fromkeys(f"#   {module.name}" for module, _ in definitions)
    header = HEADER.format(package=PACKAGE, version=__version__, modules="\n".join(modules), title=public.__name__)
    return header + "\n".join(sorted(imports)) + "\n\n\n" + "\n\n\n".join(texts.values()) + "\n"


@dataclass
class _Module:
    """One module of the package: its definitions, and where the other names in it come from."""

    name: str
    source: str
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # name -> statement, other packages
    internal: dict[str, tuple[str, str]] = field(default_factory=dict)  # name -> (module, name), this package

    def used(self, name: str) -> set[str]:
        """Names that a definition refers to, annotations aside."""
        collector = _UsedNames()
        collector.visit(self.definitions[name])
        return collector.names

    def text(self, name: str, of_pipeline: bool) -> str:
        """The source of a definition with the comments before it."""
        node, lines = self.definitions[name], self.source.splitlines()
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        for start, end, replacement in sorted(_changes(node) if of_pipeline else [], reverse=True):
            (row, column), (last_row, last_column) = start, end
            before, after = lines[row - 1][:column], lines[last_row - 1][last_column:]
            lines[row - 1 : last_row] = [before + replacement + after]
        last = len(lines) - (len(self.source.splitlines()) - node.end_lineno)
        while lines[first - 2].startswith("#") and first > 2:
            first -= 1
        return "\n".join(lines[first - 1 : last])


class _UsedNames(ast.NodeVisitor):
    def __init__(self):
        self.names = set()

    def visit_Name(self, node):
        self.names.add(node.id)

    def visit_arg(self, node):
        pass

    def visit_AnnAssign(self, node):
        if node.value is not None:
            self.visit(node.value)

    def visit_FunctionDef(self, node):
        body = [] if _needs_the_package(node) else node.body
        for part in [*node.decorator_list, node.args, *body]:
            self.visit(part)


def _needs_the_package(method: ast.stmt) -> bool:
    """Whether a method is one of those that stay behind."""
    imports = (part for part in ast.walk(method) if isinstance(part, ast.ImportFrom))
    is_method = isinstance(method, ast.FunctionDef)
    return is_method and (method.name in PACKAGE_ONLY or any(part.level for part in imports))


def _changes(node: ast.ClassDef) -> list[tuple[tuple[int, int], tuple[int, int], str]]:
    """(start, end, replacement) of the parts of a pipeline's class that differ in the file."""
    changes = []
    for method in node.body:
        if _needs_the_package(method):
            first, last = method.body[0], method.body[-1]
            message = f'"`{method.name}` needs the package: pip install {PACKAGE}"'
            span = (first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset)
            changes.append((*span, f"raise NotImplementedError({message})"))
        elif getattr(method, "name", None) == "__init__":
            changes += [
                ((item.lineno, item.col_offset), (item.end_lineno, item.end_col_offset), item.arg)
                for item in method.args.args
                if item.annotation is not None
            ]
    return changes


@cache
def _read(name: str) -> _Module:
    """Parse a module of the package."""
    source = inspect.getsource(importlib.import_module(name))
    module, tree = _Module(name, source), ast.parse(source)
    parts = name.split(".")
    if importlib.import_module(name).__file__.endswith("__init__.py"):
        parts.append("__init__")
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            module.definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            for part in ast.walk(ast.Tuple(node.targets, ast.Store())):
                if isinstance(part, ast.Name):
                    module.definitions[part.id] = node
        elif isinstance(node, ast.ImportFrom) and node.level:
            target = ".".join([*parts[: -node.level], *([node.module] if node.module else [])])
            module.internal |= {alias.asname or alias.name: (target, alias.name) for alias in node.names}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                known_as = f" as {alias.asname}" if alias.asname else ""
                module.imports[alias.asname or alias.name] = f"{origin}import {alias.name}{known_as}"
    return module


def _needed(public: type) -> list[tuple[_Module, str]]:
    """All definitions that a class needs, each after those that it needs itself."""
    ordered: dict[tuple[str, str], tuple[_Module, str]] = {}
    visiting = set()

    def visit(module_name: str, name: str) -> None:
        module = _read(module_name)
        if name in module.internal:
            return visit(*module.internal[name])
        if name not in module.definitions or (module_name, name) in visiting:
            return None
        visiting.add((module_name, name))
        for used in sorted(module.used(name)):
            visit(module_name, used)
        ordered[module_name, name] = (module, name)
        return None

    visit(public.__module__, public.__name__)
    return list(ordered.values())
