"""The source of the site: every page of the docs is in it, links lead to pages and headings, and a search finds its recipe."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from scripts.release import docs

ROOT = Path(__file__).parents[2]


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
            if target in docs.FILES.values():
                continue
            file, _, anchor = target.partition("#")
            there = os.path.normpath(Path(path).parent / file) if file else path
            assert there in pages, (path, target)
            assert not anchor or anchor in map(docs.find_anchor, docs.list_headings(pages[there])), (path, target)
            count += 1
    assert count > 50


@pytest.mark.parametrize(
    ("query", "recipe"),
    [
        ("jpeg", "a-folder-of-jpegs"),
        ("sklearn", "a-scikit-learn-sklearn-pipeline"),
        ("yolo", "a-yolo"),
        ("ocr", "an-ocr-model"),
        ("raspberry", "a-raspberry-pi"),
        ("microcontroller", "a-microcontroller"),
        ("wrong accuracy", "wrong-accuracy"),
        ("culprit", "find-the-layer-that-causes-the-loss-the-culprit"),
        ("max-drop", "hold-an-accuracy-max-drop"),
        ("slower", "slower-than-float"),
        ("four machines", "calibrate-on-four-machines"),
        ("token", "serve-with-a-token"),
    ],
)  # fmt: skip
def test_a_search_finds_its_recipe_first(pages: dict[str, str], query: str, recipe: str) -> None:
    """A word in a heading counts a thousand times one in the text, and no other heading begins words with all of these."""
    words = split_words(query)
    found = [
        (path, heading)
        for path, text in pages.items()
        for heading in docs.list_headings(text)
        if all(any(token.startswith(word) for token in split_words(heading)) for word in words)
    ]
    assert [path for path, _ in found] == [f"recipes/{recipe}.md"], found
    assert pages[found[0][0]].startswith(f"# {found[0][1]}\n")


def split_words(text: str) -> list[str]:
    """As the site's search does."""
    return [word for word in re.split(docs.SEPARATOR, text.lower()) if word]


def test_pictures_and_the_notebook_are_in_the_site(pages: dict[str, str]) -> None:
    assert "](report.png)" in pages["index.md"]
    assert "[notebook](notebook.md)" in pages["index.md"]
    assert "```python\nmade = fcdeploy.quantize(module," in pages["notebook.md"]
    assert all((ROOT / source).exists() for source in docs.FILES)
    assert "[Dockerfile](Dockerfile)" in pages["serving.md"] and "(fcdeploy.service)" in pages["serving.md"]


def test_pages_for_those_who_change_it_come_last_in_a_search(tmp_path: Path, pages: dict[str, str]) -> None:
    docs.main(tmp_path)
    assert set(docs.LAST) <= set(pages)
    for path in pages:
        text = (tmp_path / "pages" / path).read_text()
        assert text.startswith("---\nsearch:\n  boost: 0.2\n---\n# ") is (path in docs.LAST), path


def test_the_references_have_all_commands_and_functions(pages: dict[str, str]) -> None:
    assert "## fcdeploy transform split" in pages["reference/commands.md"]
    assert "--max-drop PP" in pages["reference/commands.md"]
    assert "## quantize\n\n```python\nfcdeploy.quantize(\n    model: str | Path," in pages["reference/python.md"]
