"""The docs as the source of a site: long pages cut at their headings, links led to where things then are, and references.

In the repository one page has every command, and is searched by eye; the site has a page a command and a recipe, so that its
search finds them by their titles.  The references are made: of commands from `--help`, of the Python API from signatures and
docstrings.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click

import fcdeploy
from fcdeploy import cli
from scripts.checkout import ROOT

CUT = {"docs/guide.md": "guide", "docs/recipes.md": "recipes"}
WHOLE = {
    "README.md": "index.md", "docs/tutorial.md": "tutorial.md", "docs/concepts.md": "concepts.md",
    "docs/serving.md": "serving.md", "docs/native.md": "native.md", "docs/networks.md": "networks.md",
    "docs/runtimes.md": "runtimes.md",
    "docs/security.md": "security.md", "docs/bundle.md": "bundle.md", "docs/calibration-file.md": "calibration-file.md",
    "docs/benchmarks.md": "benchmarks.md", "docs/architecture.md": "architecture.md", "docs/decisions.md": "decisions.md",
    "docs/glossary.md": "glossary.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md", "models/README.md": "models.md", "calib_data/README.md": "data.md",
}  # fmt: skip
"""Page of the repository -> page of the site."""
NOTEBOOK = "docs/notebook.ipynb"
FILES = {
    "docs/report.png": "report.png", "docs/Dockerfile": "Dockerfile", "docs/fcdeploy.service": "fcdeploy.service",
}  # fmt: skip
"""What pages show or offer, as it is."""
LAST = ("decisions.md", "changelog.md", "benchmarks.md", "architecture.md", "contributing.md", "models.md", "data.md")
"""Pages that a search gives behind all others: they have every word, and are for those who change fcdeploy."""
BEHIND = "---\nsearch:\n  boost: 0.2\n---\n"
SEPARATOR = r"""[\s\-,:!=\[\]()"/`]+|\.(?!\d)"""
"""Between two words of the site's search: by default brackets would stay part of a word, and `(sklearn)` would not be found."""
SECTIONS = (
    ("Start", ("index.md", "tutorial.md", "notebook.md")),
    ("Recipes", ("recipes/",)),
    ("Guide", ("guide/", "serving.md", "native.md", "networks.md")),
    ("Concepts", ("concepts.md", "glossary.md", "runtimes.md", "security.md", "benchmarks.md")),
    (
        "Reference",
        ("reference/commands.md", "reference/python.md", "bundle.md", "calibration-file.md", "models.md", "data.md"),
    ),
    ("Project", ("architecture.md", "decisions.md", "contributing.md", "security-policy.md", "changelog.md")),
)
CONFIG = """site_name: fcdeploy
docs_dir: pages
use_directory_urls: false
theme:
  name: material
  font: false
  features: [navigation.sections, navigation.top, search.suggest, search.highlight, content.code.copy, toc.follow]
  palette:
    - {{media: "(prefers-color-scheme: light)", scheme: default}}
    - {{media: "(prefers-color-scheme: dark)", scheme: slate}}
plugins:
  - search: {{separator: '{separator}'}}
  - offline
markdown_extensions:
  - tables
  - toc: {{permalink: true, slugify: !!python/object/apply:pymdownx.slugs.slugify {{kwds: {{case: lower}}}}}}
  - pymdownx.highlight
  - pymdownx.superfences
validation: {{links: {{anchors: warn, not_found: warn, unrecognized_links: warn}}}}
nav:
{nav}
"""


@dataclass(frozen=True)
class Page:
    """A page of the site: where it is, what it was cut from, its text as it stands there."""

    path: str
    source: str
    text: str


def find_anchor(heading: str) -> str:
    """As GitHub and the site make it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def list_headings(text: str) -> list[str]:
    """Of a page; lines inside fences are none."""
    return re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


def cut(source: str, folder: str) -> list[Page]:
    """A page for each heading of the second level; what stands before the first is the folder's own page."""
    first, *parts = re.split(r"^## (?=.*$)", (ROOT / source).read_text(), flags=re.M)
    pages = [Page(f"{folder}/index.md", source, first)]
    for part in parts:
        title, _, body = part.partition("\n")
        body = re.sub(r"^##(#+ )", r"#\1", body, flags=re.M)
        pages.append(Page(f"{folder}/{find_anchor(title.removeprefix('fcdeploy '))}.md", source, f"# {title}\n{body}"))
    return pages


def lead_links(page: Page, places: dict[tuple[str, str], str]) -> str:
    """The text with its links led to pages of the site; what the site has not keeps its words, without a link."""

    def lead(match: re.Match[str]) -> str:
        picture, words, target = match[1], match[2], match[3]
        if target.startswith("https://"):
            return match[0]
        file, _, anchor = target.partition("#")
        where = os.path.normpath(Path(page.source).parent / file) if file else page.source
        there = places.get((where, anchor))
        if there is None:
            return words
        relative = os.path.relpath(there, Path(page.path).parent)
        return f"{picture}[{words}]({relative}{f'#{anchor}' if anchor and not is_title(there, anchor) else ''})"

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)", lead, page.text)


def is_title(there: str, anchor: str) -> bool:
    """A heading that became the title of its page needs no anchor."""
    return there.startswith(tuple(f"{folder}/" for folder in CUT.values())) and there.endswith(
        f"/{anchor.removeprefix('fcdeploy-')}.md"
    )


def write_commands() -> str:
    """`--help` of every command."""
    parts = ["# Commands\n"]
    for name in cli.COMMANDS:
        command = cli.fcdeploy.get_command(click.Context(cli.fcdeploy), name)
        assert command is not None
        inner = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        for word, one in inner:
            title = f"fcdeploy {name} {word}".strip()
            text = one.get_help(click.Context(one, info_name=title, max_content_width=100, terminal_width=100))
            parts.append(f"## {title}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def write_python() -> str:
    """Signatures from the stub, and docstrings."""
    parts = [f"# Python\n\n```text\n{fcdeploy.__doc__}```\n"]
    for name in (*fcdeploy.FUNCTIONS, *fcdeploy.RESULTS):
        thing = getattr(fcdeploy, name)
        if name in fcdeploy.FUNCTIONS:
            words = [write_parameter(row) for row in inspect.signature(thing).parameters.values()]
            head = (
                f"fcdeploy.{name}(\n    "
                + ",\n    ".join(words)
                + f"\n) -> {inspect.signature(thing).return_annotation}"
            )
        else:
            rows = [f"    {key}: {kind}" for key, kind in thing.__annotations__.items()]
            head = "\n".join([f"class fcdeploy.{name}", *rows])
        parts.append(f"## {name}\n\n```python\n{head}\n```\n\n{inspect.getdoc(thing)}\n")
    return "\n".join(parts)


def write_parameter(row: inspect.Parameter) -> str:
    """With the type as the source has it."""
    star = {row.VAR_POSITIONAL: "*", row.VAR_KEYWORD: "**"}.get(row.kind, "")
    default = "" if row.default is row.empty else f" = {row.default!r}"
    return f"{star}{row.name}: {row.annotation}{default}"


def write_notebook() -> str:
    """The cells of the notebook, and what they printed as text."""
    parts = []
    for cell in json.loads((ROOT / NOTEBOOK).read_text())["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            text = "".join(output.get("text", output.get("data", {}).get("text/plain", ()))).rstrip()
            parts += [f"```text\n{text}\n```"] if text else []
    return "\n\n".join(parts) + "\n"


def make_pages() -> dict[str, str]:
    """Every page of the site by its path."""
    pages = [page for source, folder in CUT.items() for page in cut(source, folder)]
    pages += [Page(path, source, (ROOT / source).read_text()) for source, path in WHOLE.items()]
    places = {(source, ""): path for source, path in {**FILES, NOTEBOOK: "notebook.md"}.items()}
    for page in pages:
        places.setdefault((page.source, ""), page.path)
        for heading in list_headings(page.text):
            places.setdefault((page.source, find_anchor(heading)), page.path)
    made = {page.path: lead_links(page, places) for page in pages}
    return made | {
        "notebook.md": write_notebook(),
        "reference/commands.md": write_commands(),
        "reference/python.md": write_python(),
    }


def write_nav(pages: dict[str, str]) -> str:
    """The sections; a folder stands for all its pages, in order."""
    lines = []
    for title, paths in SECTIONS:
        lines.append(f"  - {title}:")
        for path in paths:
            lines += [f"    - {one}" for one in pages if one == path or (path.endswith("/") and one.startswith(path))]
    return "\n".join(lines)


def main(folder: Path) -> None:
    pages = make_pages()
    for path, text in pages.items():
        file = folder / "pages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{BEHIND if path in LAST else ''}{text}")
    for source, path in FILES.items():
        shutil.copyfile(ROOT / source, folder / "pages" / path)
    (folder / "mkdocs.yml").write_text(CONFIG.format(nav=write_nav(pages), separator=SEPARATOR))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
