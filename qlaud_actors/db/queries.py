"""Named SQL: `queries.sql` beside each store is the only place with SQL.

A file is a list of statements, each under `-- name: some_name` and a line that says what it does.
"""

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Queries:
    """The statements of one `queries.sql`, as attributes: `QUERIES.<name>`."""

    def __init__(self, statements: dict[str, str]) -> None:
        self._statements = statements

    def __getattr__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise AttributeError(f"no query named {name!r}") from None


def load_queries(package: str) -> Queries:
    """Read `queries.sql` of a package. Raises ValueError on a duplicate name."""
    text = files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    return Queries(parse_queries(text))


def parse_queries(text: str) -> dict[str, str]:
    """Split a queries file into statements by name."""
    parts = _NAME.split(text)
    statements: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        if name in statements:
            raise ValueError(f"query {name!r} is defined twice")
        statements[name] = body.strip().removesuffix(";")
    return statements
