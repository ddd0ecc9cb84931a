"""What MkDocs has made for the manual: pages of the code (every command, every setting), and formulas as MathML."""

from __future__ import annotations

import re
from html import unescape
from typing import Any, get_args

import click
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.main import get_command

from featcx_core.specs import RunSpec
from flows.cli.app import app


def on_files(files: Files, config: Any) -> Files:
    """MkDocs' hook: adds the two pages."""
    for path, text in (("reference/commands.md", commands()), ("reference/settings.md", settings())):
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """MkDocs' hook: TeX becomes MathML, which browsers show without a script from elsewhere."""

    def formula(found: re.Match[str]) -> str:
        return convert(unescape(found[2]), display="block" if found[1] == "[" else "inline")

    return re.sub(
        r'<(?:span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</(?:span|div)>', formula, html, flags=re.DOTALL
    )


def commands() -> str:
    """A section a command: what it does, how it is called, its options."""
    return "# Commands\n\n" + "\n".join(_command(get_command(app), "featcx"))


def _command(command: click.Command, name: str) -> list[str]:
    if isinstance(command, click.Group):
        return [line for own, each in sorted(command.commands.items()) for line in _command(each, f"{name} {own}")]
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"## {name}", "", (command.help or "").strip(), "", "```text", usage, "```", ""]
    records = [found for parameter in command.params if (found := parameter.get_help_record(context))]
    if records:
        lines += ["| option | |", "| --- | --- |"]
        lines += [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
    return [*lines, ""]


def settings() -> str:
    """A table a group of settings."""
    told = "What `--set path.to.field=value`, a file given with `--config` and the forms take. Presets change the defaults.\n"
    return f"# Settings\n\n{told}\n" + "\n".join(_model(RunSpec, ""))


def _model(model: type[BaseModel], path: str) -> list[str]:
    rows, below = list[str](), list[str]()
    for name, field in model.model_fields.items():
        inner = [
            t
            for t in (field.annotation, *get_args(field.annotation))
            if isinstance(t, type) and issubclass(t, BaseModel)
        ]
        if inner:
            below += _model(inner[0], f"{path}{name}.")
            continue
        default = _cell(str(field.get_default(call_default_factory=True)))
        rows.append(f"| `{path}{name}` | `{default}` | {_cell(field.description or '')} |")
    head = [f"## {path.rstrip('.') or 'the run'}", "", (model.__doc__ or "").strip().splitlines()[0], ""]
    return [*head, "| field | default | |", "| --- | --- | --- |", *rows, "", *below] if rows else below


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
