# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What MkDocs does while it builds the site: reference pages from the code, and formulas that need no script."""

import re
from dataclasses import MISSING, fields
from html import unescape
from typing import Any, get_args, get_type_hints

from latex2mathml.converter import convert


def on_page_markdown(markdown, **_):
    """Fill in the reference of the commands and of the training arguments."""
    for name, write in (("commands", commands), ("training-arguments", training_arguments)):
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", write())
    return markdown


def on_page_content(html, **_):
    """Turn formulas into MathML, which browsers draw by themselves."""
    formula = r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>'
    display = {"span": "inline", "div": "block"}
    return re.sub(formula, lambda m: convert(unescape(m[2]), display=display[m[1]]), html, flags=re.DOTALL)


def commands():
    """The help of every command, as its own section."""
    import typer
    from typer.cli import get_docs_for_click

    from zoomdiff_diffusers.commands import app

    command = typer.main.get_command(app)
    context = typer.Context(command)
    text = get_docs_for_click(obj=command, ctx=context, name="zoomdiff")
    return re.sub(r"^#", "##", text, flags=re.MULTILINE)  # the page has a title of its own


def training_arguments():
    """A table per group of arguments."""
    from zoomdiff_diffusers.training.arguments import GROUPS

    parts = []
    for section, group in GROUPS.items():
        parts.append(f"## {section}\n\n{group.__doc__}\n\n| argument | default | meaning |\n|---|---|---|")
        hints = get_type_hints(group)
        for field in fields(group):
            default = field.default if field.default is not MISSING else field.default_factory()
            choices = [choice for choice in get_args(hints[field.name]) for choice in get_args(choice) or [choice]]
            choices = [f"`{choice}`" for choice in choices if isinstance(choice, str)]
            text = field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
            text += " *JSON*." if hints[field.name] is Any else ""
            shown = "" if default is None else f"`{default}`"
            parts.append(f"| `{field.name}` | {shown} | {text.replace('|', chr(92) + '|')} |")
        parts.append("")
    return "\n".join(parts)
