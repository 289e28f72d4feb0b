# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Docstrings in Diffusers' style for mkdocstrings: links such as [`Hierarchy`] and types in backticks."""

import re

from griffe import Extension


class DocstringStyle(Extension):
    """Rewrites docstrings before they are parsed."""

    def on_package(self, *, pkg, **_):
        members = list(walk(pkg))
        paths = [member.canonical_path for member in members]
        for member in members:
            if member.docstring is not None:
                member.docstring.value = rewrite(member.docstring.value, paths)


def walk(parent):
    """All classes, functions and methods of a package, without those that it imports."""
    for member in parent.members.values():
        if not member.is_alias:
            yield member
            yield from walk(member)


def rewrite(text, paths):
    """`name (`type`, *optional*): ...` becomes `name (type, optional): ...`, and known names become links."""

    def link(match):
        name = match[1].lstrip("~")
        path = next((path for path in paths if path.endswith(f".{name}")), None)
        # "optional": not everything that a docstring mentions has a place in the reference
        return f'<autoref optional identifier="{path}"><code>{name}</code></autoref>' if path else f"`{name}`"

    lines = []
    for line in text.split("\n"):
        argument = re.match(r"^( +[\w, ]+) \(([^)]*(?:`|\*optional\*).*?)\):(\s|$)", line)
        if argument:  # optional ones and defaults are in the signature
            kind = re.sub(r",? ?(\*optional\*|defaults to .*)$", "", re.sub(r"\[?`~?([^`]*)`\]?", r"\1", argument[2]))
            line = f"{argument[1]}{f' ({kind})' if kind else ''}:{line[argument.end(2) + 2 :]}"
        lines.append(re.sub(r"\[`([^`]+)`\](?![\[(])", link, line))
    return "\n".join(lines)
