"""What `qlaud retention` does; `retention_commands.py` is what it is called with."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import click
import msgspec

from qlaud_actors.db.pool import ConnectionLost, DatabaseError, Pool, open_pool
from qlaud_actors.errors import NotFound
from qlaud_actors.localstack import with_local_stack
from qlaud_actors.program import ProgramError
from qlaud_actors.rights import retention
from qlaud_actors.rights.model import Due, Going, Rule
from qlaud_actors.rights.retention import Account
from qlaud_actors.settings import Settings, SettingsError

HEAD = ("account", "rule", "threads", "trimmed", "messages", "oldest")


@dataclass(frozen=True, slots=True)
class Manner:
    """How the command was asked."""

    dry_run: bool
    as_json: bool
    show: int
    """How many threads with a rule of their own are named, of each account."""


Found: TypeAlias = tuple[Account, Rule, Due]


async def run(settings: Settings, account_id: uuid.UUID | None, manner: Manner) -> None:
    """Show what is kept no longer, or remove it and show that. Raises ProgramError."""
    found: list[Found] = []
    async with _opened(settings) as pool:
        try:
            accounts = await retention.accounts(pool, account_id)
        except NotFound:
            raise ProgramError(f"there is no account {account_id}") from None
        for account in accounts:
            rule = await retention.rule_of(pool, account.id)
            due = await retention.due(pool, account.id, rule)
            found.append((account, rule, due if manner.dry_run else await retention.remove(pool, due)))
    if manner.as_json:
        click.echo(msgspec.json.encode(_as_json(found, manner)).decode())
        return
    click.echo(table(found, manner.show) if found else "no account and no thread has a rule: all is kept")
    if found:
        click.echo(_in_all(found, manner))


def table(found: list[Found], show: int) -> str:
    """A line for each account's rule, and under it the threads that go by their own; figures to the right."""
    lines: list[tuple[str, ...]] = [HEAD]
    for account, rule, due in found:
        lines.append(_line(account.name, _words(rule), due.by_account()))
        own = due.by_threads()
        for one in own[:show]:
            goes = Due([], [one]) if one.first else Due([one], [])
            lines.append(_line("", f"thread {one.thread_id}: {_own(one)}", goes))
        if own[show:]:
            lines.append(("", f"and {len(own) - show:,} more threads by their own rules", "", "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    texts = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
    texts[2:5] = [cell.rjust(width) for cell, width in zip(line[2:5], widths[2:5], strict=True)]
    return "  ".join(texts).rstrip()


def _line(name: str, rule: str, due: Due) -> tuple[str, ...]:
    figures = (f"{n:,}" for n in (len(due.whole), len(due.trimmed), due.messages))
    return (name, rule, *figures, _day(due.oldest_ms))


def _words(rule: Rule) -> str:
    parts = [
        f"{rule.ttl_days} days" if rule.ttl_days else "",
        f"latest {rule.keep_latest_threads} threads" if rule.keep_latest_threads else "",
        f"latest {rule.keep_latest_messages} messages" if rule.keep_latest_messages else "",
    ]
    return ", ".join(part for part in parts if part) or "all is kept"


def _own(one: Going) -> str:
    return _words(Rule(one.own_days, None, one.own_messages))


def _day(ms: int | None) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d") if ms is not None else ""


def _in_all(found: list[Found], manner: Manner) -> str:
    threads = sum(len(due.whole) for _, _, due in found)
    trimmed = sum(len(due.trimmed) for _, _, due in found)
    messages = sum(due.messages for _, _, due in found)
    goes = f"{threads:,} threads, and {messages:,} messages of {trimmed:,} threads that stay"
    if manner.dry_run:
        return f"would remove {goes}; nothing was changed"
    return f"removed {goes}; the workers take the text of deleted threads away within seconds"


def _as_json(found: list[Found], manner: Manner) -> dict[str, Any]:
    return {
        "dry_run": manner.dry_run,
        "accounts": [
            {
                "account_id": str(account.id),
                "name": account.name,
                "rule": asdict(rule),
                "threads": [_going(one) for one in due.whole],
                "trimmed_threads": [_going(one) for one in due.trimmed],
                "messages": due.messages,
                "oldest_at": due.oldest_ms,
            }
            for account, rule, due in found
        ],
    }


def _going(one: Going) -> dict[str, Any]:
    whole = {"thread_id": str(one.thread_id), "own_rule": one.own, "oldest_at": one.oldest_ms}
    return whole if one.first is None else {**whole, "first_kept_seq": one.first, "messages": one.messages}


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Pool]:
    """The database, by the settings or that of a running `qlaud up`."""
    settings = with_local_stack(settings)
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL is not set, and no `qlaud up` runs here")
    try:
        pool = await open_pool(settings.database_url, max_size=2)
        try:
            yield pool
        finally:
            await pool.close()
    except (*ConnectionLost, DatabaseError) as error:
        raise ProgramError(f"the database refuses: {str(error) or type(error).__name__}") from error
