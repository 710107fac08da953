"""Our own export (`GET /v1/threads/:id/export`, `GET /v1/end-users/:id/export`): one object on each line.

Threads are taken with their messages, compactions and artifacts, as they are; what else was exported of them
(turns, tool calls, usage, connections) is a record of what happened and cannot be made to have happened
elsewhere. What an end user had in no thread stays with the copy, too.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from qlaud_actors.importing.documents import documents
from qlaud_actors.importing.model import Conversation, FormatError, Said

SETTINGS = (
    *("workspace_id", "kind", "default_mode", "default_model", "approval"),
    *("compaction", "compaction_threshold", "compaction_model"),
)
COMPACTION = ("version", "summary", "omitted", "model", "created_at")
ARTIFACT = ("name", "mime", "content", "created_at", "updated_at")


@dataclass(slots=True)
class _Thread:
    """A thread whose parts are being read."""

    fields: dict[str, Any]
    messages: list[Said] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    compactions: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)

    def build(self) -> Conversation:
        fields = self.fields
        return Conversation(
            f"qlaud:{fields['id']}",
            self.messages,
            title=fields.get("title"),
            end_user_id=fields.get("end_user_id"),
            metadata=fields.get("metadata") or {},
            settings={name: fields[name] for name in SETTINGS if fields.get(name) is not None},
            compactions=[self._compaction(line) for line in self.compactions],
            artifacts=[{name: line[name] for name in ARTIFACT} for line in self.artifacts],
        )

    def _compaction(self, line: dict[str, Any]) -> dict[str, Any]:
        """Its seqs in the new thread, which counts from 1, whatever retention has left of the old one."""
        through = {
            name: bisect_right(self.seqs, line[name])
            for name in ("summarized_through_seq", "trimmed_through_seq")
        }
        return {**{name: line[name] for name in COMPACTION}, **through}


def read(raw: bytes) -> Iterator[Conversation]:
    """All threads of an export. Raises FormatError, also for one that was cut off."""
    threads: dict[str, _Thread] = {}
    last = ""
    for where, line in documents(raw):
        last = line.get("type", "")
        if last == "thread":
            threads[line["id"]] = _Thread(line)
        elif last in ("message", "compaction", "artifact") and line.get("thread_id", "") is not None:
            thread = threads.get(line.get("thread_id", ""))
            if thread is None:
                raise FormatError(f"{where}: a {last} before its thread")
            _add(thread, last, where, line)
    if last != "end":
        raise FormatError("the export was cut off: its last line is missing")
    for thread in threads.values():
        yield thread.build()


def _add(thread: _Thread, kind: str, where: str, line: dict[str, Any]) -> None:
    try:
        if kind == "message":
            thread.messages.append(Said(line["role"], line["content"], line["created_at"]))
            thread.seqs.append(line["seq"])
        elif kind == "compaction":
            thread.compactions.append(line)
        else:
            thread.artifacts.append(line)
    except KeyError as missing:
        raise FormatError(f"{where}: a {kind} without {missing}") from None


def is_export(raw: bytes) -> bool:
    """Whether a file begins as an export does."""
    head, _, _ = raw[:4096].partition(b"\n")
    try:
        first = msgspec.json.decode(head)
    except msgspec.DecodeError:
        return False
    return isinstance(first, dict) and first.get("type") == "export"
