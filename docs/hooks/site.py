"""What the site is made from beside its pages: tables of the recipe's keys, the example's files, one check.

In a page stand

    <!-- keys TYPE from FIELD -->    the fields of a type of anyshape.recipe, up to the one of the next mark
    <!-- files FOLDER -->            every file of a folder of docs/, each in a code block with its name
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, get_type_hints

import msgspec
from mkdocs.exceptions import PluginError

from anyshape import recipe

KEYS = re.compile(r"^<!-- keys (\w+) from (\w+) -->$", re.MULTILINE)
FILES = re.compile(r"^<!-- files (\S+) -->$", re.MULTILINE)
ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|link rel="stylesheet")[^>]*(?:src|href)=["'](?:https?:)?//[^"']*"""
)


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """A page with its marks replaced. Raises PluginError for a mark that names nothing."""
    marks = KEYS.findall(markdown)

    def table(mark: re.Match[str]) -> str:
        later = [field for kind, field in marks if kind == mark[1] and field != mark[2]]
        return _table(getattr(recipe, mark[1]), mark[2], later)

    markdown = KEYS.sub(table, markdown)
    return FILES.sub(lambda mark: _files(Path(config["docs_dir"]), mark[1]), markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page as it is, if it loads nothing from another host. Raises PluginError."""
    found = ELSEWHERE.search(output)
    if found:
        raise PluginError(f"{page.file.src_path} loads something from elsewhere: {found[0]}")
    return output


def _table(kind: Any, first: str, later: List[str]) -> str:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if first not in fields:
        raise PluginError(f"anyshape.recipe.{kind.__name__} has no field {first}")
    names = list(fields)[list(fields).index(first) :]
    end = next((names.index(name) for name in names if name in later), len(names))
    hints = get_type_hints(kind, include_extras=True)
    lines = ["| key | what it says | must be | default |", "|---|---|---|---|"]
    for name in names[:end]:
        # The key's own Meta comes last, after those of the type that it is made from.
        meta = [m for m in hints[name].__metadata__ if isinstance(m, msgspec.Meta)][-1]
        if not meta.description:
            raise PluginError(f"anyshape.recipe.{kind.__name__}.{name} has no description")
        row = (f"`{name}`", meta.description, (meta.extra or {}).get("must", ""), _default(fields[name]))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join(lines)


def _default(field: Any) -> str:
    if field.required:
        return "**required**"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if default is None:
        return "–"
    words = {True: "true", False: "false"}
    if isinstance(default, bool):
        return f"`{words[default]}`"
    return f"`{default:_}`" if isinstance(default, int) else f"`{default}`"


LANGUAGES: Dict[str, str] = {".py": "python", ".yaml": "yaml", ".sh": "bash"}


def _files(docs: Path, folder: str) -> str:
    files = sorted(path for path in (docs / folder).glob("*") if path.suffix in LANGUAGES)
    if not files:
        raise PluginError(f"docs/{folder} holds no file to show")
    return "\n\n".join(
        f'```{LANGUAGES[path.suffix]} title="{path.name}"\n{path.read_text(encoding="utf-8").rstrip()}\n```'
        for path in files
    )
