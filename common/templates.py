"""Jinja2 templates that lie beside the code that fills them: pages, cards and reports.

    template(__file__, "report.md.jinja").render(title="...")

In: the calling module's `__file__`, a template's file name, and by keyword what it names. Out: the text, with the
template's own line ends, the last one too. Blocks (`{% ... %}`) that stand alone on a line leave none. What a template
names and is not given raises `jinja2.UndefinedError`. In a `*.html.jinja` everything is escaped that is no
`markupsafe.Markup`; nothing is in the others, but `table.md.jinja` here escapes the cells of Markdown tables:

    {% from "table.md.jinja" import markdown_table %}
    {{ markdown_table(["label", "boxes"], [["Edema", 3]]) }}
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template


def template(module_file: str, name: str) -> Template:
    """The template `name` in the folder of the module whose `__file__` is given.

    It may include and import templates beside it and beside this file.
    """
    return _environment(Path(module_file).parent).get_template(name)


@cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
