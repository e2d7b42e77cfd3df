import ast
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

import litegpt
from litegpt.common.templates import template

REPOSITORY = Path(litegpt.__file__).resolve().parents[1]
MACROS_ALONE = ("table.md.jinja", "gallery.html.jinja")


@pytest.fixture
def render(tmp_path):
    """(file name, its text, what it is given) -> what comes out."""

    def rendered(name: str, text: str, **given) -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return template(str(tmp_path / "module.py"), name).render(**given)

    return rendered


def test_a_missing_value_is_an_error_and_no_gap(render):
    for text in ("{{ name }}", "{% if name %}{% endif %}", "{{ person.name }}", "{% for one in name %}{% endfor %}"):
        with pytest.raises(UndefinedError, match="name"):
            render("a.md.jinja", text, person={})


def test_html_is_escaped_and_text_is_not(render):
    words = """<b> & "c" 'd'"""
    assert render("a.html.jinja", "{{ words }}", words=words) == "&lt;b&gt; &amp; &#34;c&#34; &#39;d&#39;"
    assert render("b.html.jinja", "{{ words }}", words=Markup("<b>")) == "<b>"
    assert render("a.md.jinja", "{{ words }}", words=words) == words


def test_blocks_leave_no_lines_and_the_last_line_end_stays(render):
    text = "a\n  {% for one in (1, 2) %}\n- {{ one }}\n  {% endfor %}\nb\n"
    assert render("a.md.jinja", text) == "a\n- 1\n- 2\nb\n"


def test_a_cell_of_a_markdown_table_neither_ends_it_nor_becomes_html(render):
    text = '{% from "table.md.jinja" import markdown_table %}{{ markdown_table(head, rows) }}'
    table = render("a.md.jinja", text, head=["a|b", ""], rows=[["<i>x</i> & y", 3], ['"q"', "it's"]])
    assert table.splitlines() == [
        "| a\\|b |  |",
        "| --- | --- |",
        "| &lt;i>x&lt;/i> &amp; y | 3 |",
        '| "q" | it\'s |',
    ]
    assert render("a.md.jinja", text, head=["a"], rows=[]) == "| a |\n| --- |"


def templates() -> list[str]:
    """Those of the package, by their path in the repository."""
    names = setup_py("FOLDERS")
    return sorted(str(path.relative_to(REPOSITORY)) for name in names for path in (REPOSITORY / name).rglob("*.jinja"))


def setup_py(name: str) -> Any:
    """The value of a variable or a keyword in setup.py, which is a literal."""
    for node in ast.walk(ast.parse((REPOSITORY / "setup.py").read_text(encoding="utf-8"))):
        names = [node.arg] if isinstance(node, ast.keyword) else [ast.unparse(x) for x in getattr(node, "targets", ())]
        if name in names:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py has no {name}")


@pytest.mark.parametrize("path", [path for path in templates() if Path(path).name not in MACROS_ALONE])
def test_a_template_of_the_package_takes_nothing_for_granted(path):
    with pytest.raises(UndefinedError):
        template(str(REPOSITORY / path), Path(path).name).render()


@pytest.mark.parametrize("path", templates())
def test_a_template_of_the_package_is_installed_with_it(path):
    folder, *_ = Path(path).parts
    patterns = setup_py("package_data").get(f"litegpt.{folder}", [])
    assert any(REPOSITORY / path in (REPOSITORY / folder).glob(pattern) for pattern in patterns)
