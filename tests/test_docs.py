"""The Python in the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {
    page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]
}
PAGES = {page.relative_to(ROOT): blocks for page, blocks in PAGES.items() if blocks}


@pytest.mark.parametrize("page", sorted(PAGES), ids=str)
def test_python_blocks(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(PAGES[page])
    for module in set(re.findall(r"^(?:import|from) (\w+)", code, re.M)):
        pytest.importorskip(module, reason=f"{page} is about it")
    exec(compile(code, page, "exec"), {"__name__": "__main__"})
