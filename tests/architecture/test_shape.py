"""The shape of the code base: sizes, names, queries, docstrings of tests, import contracts."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("qlaud_actors", "api", "workers")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BANNED_NAMES = {"utils", "helpers", "common", "base", "manager", "misc"}

type_of_function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[type_of_function]:
    """All functions of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, type_of_function):
            yield node


def lines(node: type_of_function) -> int:
    """The size of a function, docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_longer_than_300_lines() -> None:
    """A file that makes one scroll to understand it is reshaped."""
    too_long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300}
    assert too_long == {}


def test_no_function_is_longer_than_50_lines_and_most_are_short() -> None:
    """The tail is what readers fear: at most 50 lines, nine of ten at most 30."""
    sizes = [(lines(node), f"{path.name}:{node.name}") for path in SOURCES for node in functions(path)]
    assert [name for size, name in sizes if size > 50] == []
    ordered = sorted(size for size, _ in sizes)
    assert ordered[int(len(ordered) * 0.9)] <= 30


def test_no_module_has_a_name_that_says_nothing() -> None:
    """Modules are named for what they do."""
    assert [str(path) for path in SOURCES if path.stem in BANNED_NAMES] == []


def test_every_data_file_is_packaged() -> None:
    """What a module reads beside itself is in the wheel as well, and no pattern is there for nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    found = {f"*{p.suffix}" for package in PACKAGES for p in (ROOT / package).rglob("*.*") if p.is_file()}
    assert found - {"*.py", "*.pyc"} == set(patterns)


@pytest.mark.parametrize(
    "queries", sorted(ROOT.glob("qlaud_actors/*/queries.sql")), ids=lambda p: p.parent.name
)
def test_every_query_is_described_and_used(queries: Path) -> None:
    """A named query has a line that says what it does, and somebody who calls it by name."""
    text = queries.read_text(encoding="utf-8")
    names = re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)
    described = re.findall(r"^-- name: (\w+)\n-- \S", text, re.MULTILINE)
    used = set(re.findall(r"QUERIES\.(\w+)", "\n".join(p.read_text() for p in queries.parent.glob("*.py"))))
    assert names == described
    assert set(names) == used


def test_sql_stands_only_in_sql_files() -> None:
    """No SQL string in Python."""
    pattern = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b")
    found = [str(p.relative_to(ROOT)) for p in SOURCES if pattern.search(p.read_text(encoding="utf-8"))]
    assert found == []


def test_every_test_says_what_it_shows() -> None:
    """Each test has a one-sentence docstring."""
    silent = [
        f"{path.name}:{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_import_contracts_hold() -> None:
    """Imports point down; the front door and the workers never meet (import-linter)."""
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
