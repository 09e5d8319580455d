"""What the site adds to the written pages: the API by room, the gallery, the changelog, MathML."""

import ast
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "aptheory"
FORMULA = re.compile(r"\$([^$\n]+)\$")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the repository's own files."""
    pages = {"changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), **api_pages()}
    for source, content in pages.items():
        files.append(File.generated(config, source, content=content))
    for picture in sorted((ROOT / "results" / "figures").glob("*.png")):
        uri = f"pictures/{picture.name}"
        files.append(File.generated(config, uri, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas as MathML, which browsers draw without a script; the gallery's figures."""
    markdown = markdown.replace("<!-- figures -->", figures())
    blocks = re.split(r"(^```.*?^```|`[^`\n]+`)", markdown, flags=re.MULTILINE | re.DOTALL)
    blocks[::2] = [FORMULA.sub(lambda match: convert(match[1]), text) for text in blocks[::2]]
    return "".join(blocks)


def on_post_page(output: str, **_: Any) -> str:
    """Without the script that the theme would fetch from elsewhere for a search of local files."""
    return re.sub(r'<script src="https?://[^"]*"></script>', "", output)


def figures() -> str:
    """One paragraph a figure: what its script says of itself, and the picture."""
    parts = []
    for picture in sorted((ROOT / "results" / "figures").glob("*.png")):
        script = ast.parse((ROOT / "figures" / f"{picture.stem}.py").read_text(encoding="utf-8"))
        sentence = (ast.get_docstring(script) or picture.stem).split("\n\n")[0].replace("\n", " ")
        parts.append(f"**{sentence}**\n\n![{sentence}](pictures/{picture.name})")
    return "\n\n".join(parts)


def api_pages() -> dict[str, str]:
    """Source path -> page: the public names, then a page a room and a page a module."""
    rooms = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    pages, table = {}, []
    for room in rooms:
        pages |= room_pages(room)
        table.append(
            f"| [{room.name}]({room.name}/index.md) | {sentence_of(room / '__init__.py')} |"
        )
    loose = [path for path in sorted(PACKAGE.glob("*.py")) if not path.name.startswith("__")]
    for path in loose:
        pages[f"api/{path.stem}.md"] = module_page(path)
        table.append(f"| [{path.stem}]({path.stem}.md) | {sentence_of(path)} |")
    pages["api/index.md"] = "\n".join(
        [
            "# API",
            "",
            "Public names first; each is `aptheory.NAME`.",
            "",
            "| name | what it is |",
            "|---|---|",
            *public_names(),
            "",
            "## By room",
            "",
            "| room | what is in it |",
            "|---|---|",
            *table,
        ]
    )
    return pages


def public_names() -> list[str]:
    """A table row for each name of ``aptheory.__all__``, linked to its page."""
    import aptheory

    rows = []
    for name in aptheory.__all__:
        value = getattr(aptheory, name)
        home = getattr(value, "__module__", None) if not hasattr(value, "__path__") else None
        if name == "__version__":
            rows.append(f"| `{name}` | The version, as PEP 440 has it. |")
        elif home is None:  # a room, or a module of one
            path = value.__name__.split(".")[1:]
            page = "/".join([*path, "index"] if hasattr(value, "__path__") else path)
            rows.append(f"| [`{name}`]({page}.md) | {first_sentence(value.__doc__ or '')} |")
        else:
            page = "/".join(home.split(".")[1:])
            page = f"{page}/index" if (PACKAGE / page).is_dir() else page
            rows.append(
                f"| [`{name}`]({page}.md#{home}.{name}) | {first_sentence(value.__doc__ or '')} |"
            )
    return rows


def room_pages(room: Path) -> dict[str, str]:
    """The page of a room, with a line a module, and the modules' pages."""
    pages, table = {}, []
    for path in sorted(room.rglob("*.py")):
        if path.name.startswith("_"):
            continue
        where = path.relative_to(PACKAGE).with_suffix("")
        pages[f"api/{where}.md"] = module_page(path)
        table.append(
            f"| [{where.name}]({path.relative_to(room).with_suffix('.md')}) | {sentence_of(path)} |"
        )
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    pages[f"api/{room.name}/index.md"] = "\n".join(
        [f"# {room.name}", "", text, "", "| module | what is in it |", "|---|---|", *table]
    )
    return pages


def module_page(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return f"# `{name}`\n\n::: {name}\n"


def sentence_of(path: Path) -> str:
    return first_sentence(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")


def first_sentence(text: str) -> str:
    """The first line of a docstring that ends a sentence or a paragraph, fit for a table."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) ", paragraph)[0].replace("|", "\\|")
