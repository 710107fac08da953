"""What `qlaud import` does: read a file, and send each conversation to a running server."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from qlaud_actors.importing.formats import READERS, recognise
from qlaud_actors.importing.model import Conversation, FormatError, Said
from qlaud_actors.program import ProgramError
from qlaud_actors.settings import Secret

PARALLEL = 4
ATTEMPTS = 4
TITLE_CHARACTERS = 512
BATCH_BYTES = 8 * 1024 * 1024
"""Of artifacts, in base64, beside the messages: QLAUD_MAX_BODY_BYTES is 32 MiB unless set."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where conversations go, and on whose behalf."""

    url: str
    key: Secret
    end_user_id: str | None = None
    """For conversations that name none."""


@dataclass(slots=True)
class Tally:
    """What came of them."""

    made: int = 0
    known: int = 0
    refused: int = 0

    def words(self) -> str:
        """For the last line."""
        return f"{self.made} imported, {self.known} there already, {self.refused} refused"


async def run(path: Path, named: str, target: Target | None) -> int:
    """Import a file, or with no target say what it holds; 1 when some was refused. Raises ProgramError."""
    try:
        raw = await asyncio.to_thread(path.read_bytes)
        which = recognise(raw) if named == "auto" else named
        found = list(READERS[which](raw))
    except OSError as error:
        raise ProgramError(f"{path}: {error.strerror}") from None
    except (FormatError, KeyError, TypeError, AttributeError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from None
    click.echo(f"{path}: {which}, {len(found)} conversations, {sum(len(c.messages) for c in found)} messages")
    if target is None:
        return 0
    tally = await _send_all(found, target)
    click.echo(tally.words())
    return 1 if tally.refused else 0


async def _send_all(found: list[Conversation], target: Target) -> Tally:
    tally, slots = Tally(), asyncio.Semaphore(PARALLEL)
    headers = {"x-api-key": target.key.reveal()}
    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=120) as client:
        with _progress(len(found)) as bar:

            async def one(conversation: Conversation) -> None:
                async with slots:
                    await _send(client, conversation, target, tally)
                bar.update(1)

            async with asyncio.TaskGroup() as group:
                for conversation in found:
                    group.create_task(one(conversation))
    return tally


async def _send(client: httpx.AsyncClient, conversation: Conversation, target: Target, tally: Tally) -> None:
    """A thread with its first artifacts, then the same again with the others: it is made once."""
    body = request_body(conversation, target.end_user_id)
    statuses: set[int] = set()
    for some in batches(conversation.artifacts):
        answer = await _post(client, {**body, "artifacts": some}, target)
        if answer.status_code in (403, 404) and body.pop("compaction_model", None):  # there is none here
            answer = await _post(client, {**body, "artifacts": some}, target)
        statuses.add(answer.status_code)
        if answer.status_code not in (200, 201):
            tally.refused += 1
            click.echo(f"{conversation.external_id}: {answer.status_code}: {_reason(answer)}", err=True)
            return
    if 201 in statuses:
        tally.made += 1
    else:
        tally.known += 1


def batches(artifacts: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """As many at once as a request may well carry; at least one batch, if an empty one."""
    some: list[dict[str, Any]] = []
    size = 0
    for artifact in artifacts:
        size += len(artifact["content"])
        if some and size > BATCH_BYTES:
            yield some
            some, size = [], len(artifact["content"])
        some.append(artifact)
    yield some


async def _post(client: httpx.AsyncClient, body: dict[str, Any], target: Target) -> httpx.Response:
    """Sending twice makes one thread, so whatever may pass is tried again. Raises ProgramError."""
    answer: httpx.Response | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(2**attempt)
        try:
            answer = await client.post("/v1/threads/import", json=body)
        except httpx.TransportError:
            continue
        if answer.status_code != 429 and answer.status_code < 500:
            break
    if answer is None:
        raise ProgramError(f"{target.url} cannot be reached")
    if answer.status_code == 401:
        raise ProgramError("The key is not accepted")
    return answer


def request_body(conversation: Conversation, end_user_id: str | None) -> dict[str, Any]:
    """The body of `POST /v1/threads/import`."""
    return {
        "external_id": conversation.external_id,
        "title": conversation.title[:TITLE_CHARACTERS] if conversation.title else None,
        "end_user_id": conversation.end_user_id or end_user_id,
        "metadata": conversation.metadata or None,
        "messages": [_message(said) for said in conversation.messages],
        "compactions": conversation.compactions,
        **conversation.settings,
    }


def _message(said: Said) -> dict[str, Any]:
    return {"role": said.role, "content": said.content, "created_at": said.created_at_ms}


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


@contextmanager
def _progress(length: int) -> Iterator[Any]:
    with click.progressbar(length=length, label="importing", file=sys.stderr) as bar:
        yield bar
