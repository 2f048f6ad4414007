"""Print how often conditions and question words occur in the prose of the project, per 1,000 words.

The prose of a Python file is its docstrings and comments; the prose of a Markdown file is the text outside
code blocks. Compare the rates with those of other code bases; no check fails because of them.

    python tests/style/words.py                     # the project, part by part
    python tests/style/words.py path/to/a/package   # any files and directories
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

COUNTED = ("where", "what", "if", "when")
PARTS = (
    "airflow_provider_hkex_rap",
    "dags",
    "tests",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
)
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_CODE_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def python_prose(source: str) -> Iterator[str]:
    """Yield the docstrings and comments of a Python file.

    Every string that stands alone as a statement counts as a docstring, also below an attribute.
    """
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def markdown_prose(source: str) -> Iterator[str]:
    """Yield the text of a Markdown file, without its code blocks."""
    yield _CODE_BLOCK.sub("", source)


PROSE = {".py": python_prose, ".md": markdown_prose}


def files(path: Path, suffix: str) -> list[Path]:
    """Return the files with *suffix* at *path*, without those in hidden directories below it."""
    if path.is_file():
        return [path] if path.suffix == suffix else []
    found = sorted(path.rglob(f"*{suffix}"))
    return [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]


def count_words(paths: list[Path], suffix: str) -> Counter[str]:
    """Count each word of the prose of some files, in lower case."""
    counts: Counter[str] = Counter()
    for path in paths:
        for text in PROSE[suffix](path.read_text(encoding="utf-8")):
            counts.update(word.lower() for word in _WORD.findall(text))
    return counts


def print_rates(paths: list[str]) -> None:
    """Print one line for the Python files of each path, and one for its Markdown files."""
    print(f"{'path':<44}{'':<5}{'words':>7}" + "".join(f"{word:>7}" for word in COUNTED))
    for path in paths:
        for suffix in PROSE:
            if total := (counts := count_words(files(Path(path), suffix), suffix)).total():
                rates = "".join(f"{1000 * counts[word] / total:>7.1f}" for word in COUNTED)
                print(f"{path[-43:]:<44}{suffix:<5}{total:>7}{rates}")


if __name__ == "__main__":
    print_rates(sys.argv[1:] or [part for part in PARTS if Path(part).exists()])
