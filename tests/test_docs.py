"""The Python in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GALLERY = Path("docs/gallery.md")
"""Every block of which stands for itself; other pages are read from the top."""


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def sections(text):
    """The parts of a page by their headings."""
    heads, bodies = (re.split(r"^## (.*)\n", text, flags=re.M)[start::2] for start in (1, 2))
    return dict(zip(heads, bodies, strict=True))


PAGES = {page.relative_to(ROOT): page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
SYSTEMS = sections(PAGES[GALLERY])
PROGRAMS = {str(page): "\n".join(blocks(text)) for page, text in PAGES.items() if page != GALLERY and blocks(text)}
PROGRAMS |= {f"{GALLERY}, {name}": "\n".join(blocks(body)) for name, body in SYSTEMS.items()}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_python_blocks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in sorted(set(re.findall(r"^(?:import|from) (\w+)", PROGRAMS[name], re.M))):
        pytest.importorskip(module, reason=f"{name} is about it")
    exec(compile(PROGRAMS[name], name, "exec"), {"__name__": "__main__"})


def test_the_gallery_is_complete():
    """One entry after the other, each with lines that run, and what it reached."""
    assert [name.split(".")[0] for name in SYSTEMS] == [str(number) for number in range(1, 22)]
    for name, body in SYSTEMS.items():
        assert blocks(body), name
        assert "**Reached.**" in body or name.startswith("18."), name


@pytest.mark.parametrize("page", sorted(PAGES), ids=str)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!http)([^)#\s]*)(?:#([^)\s]*))?\)", PAGES[page]):
        found = (ROOT / page).parent / target if target else ROOT / page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", found.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
