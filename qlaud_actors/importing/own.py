"""Our own export (`GET /v1/threads/:id/export`, `GET /v1/end-users/:id/export`): one object on each line.

Threads and messages are taken, as they are; what else was exported of them (turns, tool calls, usage,
connections) is a record of what happened and cannot be made to have happened elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from qlaud_actors.importing.documents import documents
from qlaud_actors.importing.model import Conversation, FormatError, Said


@dataclass(slots=True)
class _Thread:
    """A thread whose messages are being read."""

    fields: dict[str, Any]
    messages: list[Said] = field(default_factory=list)

    def build(self) -> Conversation:
        fields = self.fields
        return Conversation(
            f"qlaud:{fields['id']}",
            self.messages,
            title=fields.get("title"),
            end_user_id=fields.get("end_user_id"),
            metadata=fields.get("metadata") or {},
        )


def read(raw: bytes) -> Iterator[Conversation]:
    """All threads of an export. Raises FormatError, also for one that was cut off."""
    threads: dict[str, _Thread] = {}
    last = ""
    for where, line in documents(raw):
        last = line.get("type", "")
        if last == "thread":
            threads[line["id"]] = _Thread(line)
        elif last == "message":
            thread = threads.get(line.get("thread_id", ""))
            if thread is None:
                raise FormatError(f"{where}: a message before its thread")
            thread.messages.append(_said(where, line))
    if last != "end":
        raise FormatError("the export was cut off: its last line is missing")
    for thread in threads.values():
        yield thread.build()


def _said(where: str, line: dict[str, Any]) -> Said:
    try:
        return Said(line["role"], line["content"], line["created_at"])
    except KeyError as missing:
        raise FormatError(f"{where}: a message without {missing}") from None


def is_export(raw: bytes) -> bool:
    """Whether a file begins as an export does."""
    head, _, _ = raw[:4096].partition(b"\n")
    try:
        first = msgspec.json.decode(head)
    except msgspec.DecodeError:
        return False
    return isinstance(first, dict) and first.get("type") == "export"
