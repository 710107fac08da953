"""HTML out of nested calls. Whatever is not Html already is escaped, so nothing can be forgotten."""

from html import escape
from typing import TypeAlias

VOID = frozenset({"br", "input", "link", "meta"})


class Html(str):
    """Markup that was made here."""

    __slots__ = ()


Attribute: TypeAlias = str | bool | None


def tag(name: str, /, *children: str | None, **attributes: Attribute) -> Html:
    """An element. `class_` is `class`, `aria_label` is `aria-label`; None and False leave out."""
    opening = "".join([name, *(_attribute(*pair) for pair in attributes.items())])
    return Html(f"<{opening}>") if name in VOID else Html(f"<{opening}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Html:
    """Elements and texts, one behind the other."""
    return Html("".join(_escaped(child) for child in children if child is not None))


def _escaped(child: str) -> str:
    return child if isinstance(child, Html) else escape(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    spelled = name.rstrip("_").replace("_", "-")
    return f" {spelled}" if value is True else f' {spelled}="{escape(value)}"'
