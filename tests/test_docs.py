"""Every snippet of the documentation runs, and every link of a page leads somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from aptheory.studies.study import Study
from tests.test_readme import write_pictures

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = {str(p.relative_to(DOCS)): p.read_text(encoding="utf-8") for p in DOCS.rglob("*.md")}
BLOCKS = [
    (page, language, text)
    for page, content in sorted(PAGES.items())
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```", content, re.MULTILINE | re.DOTALL)
]
SLOW = ("guides/layer.md",)  # the README's snippets say the same
PYTHON = [
    pytest.param(page, text, id=page, marks=[pytest.mark.slow] if page in SLOW else [])
    for page, language, text in BLOCKS
    if language == "python"
]
COMMANDS = [
    (page, shlex.split(line[2:]))
    for page, language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
]
BRIEF = ["--subset", "40,20,20", "--seeds", "1", "--epochs", "1"]
SMALLER = {
    "run": [*BRIEF[2:], "--layers", "0.0,1.0", "--engine", "here", "--images", "12"],
    "sweep --network": [*BRIEF, "--layers", "0.0,1.0", "--engine", "here"],
    "map": [*BRIEF, "--all-cells"],
    "fit": ["--epochs", "1"],
}
MADE = ("changelog.md", "api/index.md")  # pages that the site makes itself


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_a_python_snippet_runs_by_itself(page, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(text, page, "exec"), {"__name__": "__main__"})
    plt.close("all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would stand: two classes of pictures, and the study file."""
    place = tmp_path_factory.mktemp("reader")
    write_pictures(place / "my_images")
    (study,) = [text for _, language, text in BLOCKS if language == "toml"]
    (place / "study.toml").write_text(study)
    return place


@pytest.mark.slow  # those of the README run with the fast tests
@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[" ".join(w[1:3]) for _, w in COMMANDS])
def test_a_command_runs(page, words, folder):
    line = " ".join(words[1:])
    more = next((more for start, more in SMALLER.items() if line.startswith(start)), [])
    command = [sys.executable, "-m", "aptheory", *words[1:], *more]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_study_file_is_a_study(folder):
    assert len(Study.from_toml(folder / "study.toml").networks) == 2


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[page]):
        if not target.startswith("http"):
            path = (DOCS / page).parent / target
            drawn = ROOT / "results" / "figures" / path.name
            made = str(path.relative_to(DOCS)) in MADE or drawn.is_file()
            assert path.exists() or made, target


@pytest.mark.slow
def test_the_site_is_built_and_no_page_is_large(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 200
    assert {str(page) for page in pages if page.stat().st_size > 300_000} == set()
    for page in pages:  # nothing is fetched from anywhere
        assert not re.search(
            r'src="(?:https?:)?//|href="(?:https?:)?//[^"]+\.(?:js|css|woff2?)"', page.read_text()
        )
