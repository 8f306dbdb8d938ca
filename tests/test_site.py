"""The source of the site: every page of the docs is in it, links lead to pages and headings, titles are what one searches."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import docs  # noqa: E402


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return docs.make_pages()


def test_every_page_of_the_docs_is_in_the_site(pages: dict[str, str]) -> None:
    known = {*docs.CUT, *docs.WHOLE}
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= known
    listed = {line.split("- ")[1] for line in docs.write_nav(pages).splitlines() if line.endswith(".md")}
    assert listed == set(pages)


def test_links_lead_to_pages_and_headings(pages: dict[str, str]) -> None:
    count = 0
    for path, text in pages.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
            if target.startswith("https://"):
                continue
            file, _, anchor = target.partition("#")
            there = os.path.normpath(Path(path).parent / file) if file else path
            assert there in pages, (path, target)
            assert not anchor or anchor in map(docs.find_anchor, docs.list_headings(pages[there])), (path, target)
            count += 1
    assert count > 50


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("jpeg", "recipes/a-folder-of-jpegs.md"),
        ("sklearn", "recipes/a-scikit-learn-sklearn-pipeline.md"),
        ("raspberry", "recipes/a-raspberry-pi.md"),
        ("wrong accuracy", "recipes/wrong-accuracy.md"),
        ("slower", "recipes/slower-than-float.md"),
        ("microcontroller", "recipes/a-microcontroller.md"),
    ],
)  # fmt: skip
def test_a_search_finds_its_recipe_by_the_title(pages: dict[str, str], word: str, path: str) -> None:
    """Titles count most in the site's search, and no other page has the word in its own."""
    titled = [one for one, text in pages.items() if word in text.lstrip().splitlines()[0].lower()]
    assert titled == [path]


def test_the_references_have_all_commands_and_functions(pages: dict[str, str]) -> None:
    assert "## fcdeploy transform split" in pages["reference/commands.md"]
    assert "--max-drop PP" in pages["reference/commands.md"]
    assert "## quantize\n\n```python\nfcdeploy.quantize(\n    model: str | Path," in pages["reference/python.md"]
