"""The only reader of the environment. `Settings.from_env` runs once per process."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

KEY_PATTERN = re.compile(r"^qlk_(live|test)_[0-9a-f]{64}$")


class SettingsError(Exception):
    """The environment is not usable; the message lists every problem, one per line."""


class Secret:
    """A string that never shows itself in a repr or a log; read it with `.reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('…')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the environment decides, in units named by the field."""

    host: str = "127.0.0.1"
    port: int = 8787
    data_dir: Path = Path(".qlaud")
    database_url: str | None = None
    redis_url: str | None = None
    chroma_url: str | None = None
    master_key: Secret | None = None
    keyring: Secret | None = None
    markup_bps: int = 700
    allow_private_webhooks: bool = False
    workers: int = 1
    turns_per_worker: int = 1000
    worker_port: int = 0
    database_pool_size: int = 16
    heartbeat_seconds: float = 10.0
    lease_seconds: float = 10.0
    drain_seconds: float = 5.0
    max_body_bytes: int = 32 * 1024 * 1024
    provider_attempts: int = 3
    jobs_per_worker: int = 100
    retention_days: int = 7
    vault_audit_days: int = 90
    log_level: str = "info"
    log_format: str = "json"
    public_url: str | None = None
    stripe_secret_key: Secret | None = None
    stripe_webhook_secret: Secret | None = None
    stripe_api_base: str | None = None
    catalog_dir: Path | None = None
    """The operator's own provider files, laid over the packaged ones."""
    connector_dir: Path | None = None
    """The operator's own connector files, over the packaged ones."""
    price_poll_seconds: float = 10.0
    compaction_model: str | None = None
    """Who summarises the oldest messages of long threads; the turn's own model when it is not set."""
    embedding_model: str | None = None
    """Of the catalogue; None is the offline one."""
    embedding_dimensions: int = 0
    """0 leaves it to the model."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The variables that catalogues read (`*_API_KEY`, `*_BASE_URL`, `QLAUD_OAUTH_*`), nothing else."""

    def addresses(self) -> tuple[str, str]:
        """Of Postgres and Redis. Raises SettingsError when one is missing, or the key ring."""
        missing = [
            f"{name} is not set: `qlaud up` starts everything on one machine, or name a server"
            for name, value in (("DATABASE_URL", self.database_url), ("REDIS_URL", self.redis_url))
            if value is None
        ]
        if self.keyring is None:
            missing.append("QLAUD_KEYRING is not set: it is made in the data directory by `qlaud up`")
        if missing:
            raise SettingsError("\n".join(missing))
        assert self.database_url is not None
        assert self.redis_url is not None
        return self.database_url, self.redis_url

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read and check all variables. Raises SettingsError that lists every malformed one."""
        read = _Reader(environ)
        settings = cls(
            host=read.text("QLAUD_HOST", "127.0.0.1"),
            port=read.integer("QLAUD_PORT", 8787, 1, 65535),
            data_dir=Path(read.text("QLAUD_DATA_DIR", ".qlaud")).expanduser().absolute(),
            database_url=read.url("DATABASE_URL", ("postgres", "postgresql")),
            redis_url=read.url("REDIS_URL", ("redis", "rediss", "unix")),
            chroma_url=read.url("CHROMA_URL", ("http", "https")),
            master_key=read.key("QLAUD_MASTER_KEY"),
            keyring=read.secret("QLAUD_KEYRING"),
            markup_bps=read.percent("QLAUD_MARKUP_PERCENT", 700),
            allow_private_webhooks=read.flag("QLAUD_ALLOW_PRIVATE_WEBHOOKS"),
            workers=read.integer("QLAUD_WORKERS", 1, 0, 64),
            turns_per_worker=read.integer("QLAUD_TURNS_PER_WORKER", 1000, 1, 100_000),
            worker_port=read.integer("QLAUD_WORKER_PORT", 0, 0, 65535),
            database_pool_size=read.integer("QLAUD_DATABASE_POOL_SIZE", 16, 2, 500),
            heartbeat_seconds=read.number("QLAUD_HEARTBEAT_SECONDS", 10.0, 0.1, 15.0),
            lease_seconds=read.number("QLAUD_LEASE_SECONDS", 10.0, 1.0, 300.0),
            drain_seconds=read.number("QLAUD_DRAIN_SECONDS", 5.0, 0.0, 3600.0),
            max_body_bytes=read.integer("QLAUD_MAX_BODY_BYTES", 32 * 1024 * 1024, 1024, 2**31),
            provider_attempts=read.integer("QLAUD_PROVIDER_ATTEMPTS", 3, 1, 10),
            jobs_per_worker=read.integer("QLAUD_JOBS_PER_WORKER", 100, 0, 100_000),
            retention_days=read.integer("QLAUD_RETENTION_DAYS", 7, 1, 3650),
            vault_audit_days=read.integer("QLAUD_VAULT_AUDIT_DAYS", 90, 1, 36_500),
            log_level=read.choice("QLAUD_LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            log_format=read.choice("QLAUD_LOG_FORMAT", "json", ("json", "console")),
            public_url=read.url("QLAUD_PUBLIC_URL", ("http", "https")),
            stripe_secret_key=read.secret("STRIPE_SECRET_KEY"),
            stripe_webhook_secret=read.secret("STRIPE_WEBHOOK_SECRET"),
            stripe_api_base=read.url("STRIPE_API_BASE", ("http", "https")),
            catalog_dir=read.folder("QLAUD_CATALOG_DIR"),
            connector_dir=read.folder("QLAUD_CONNECTOR_DIR"),
            compaction_model=read.text("QLAUD_COMPACTION_MODEL", "") or None,
            price_poll_seconds=read.number("QLAUD_PRICE_POLL_SECONDS", 10.0, 0.1, 15.0),
            embedding_model=read.text("QLAUD_EMBEDDING_MODEL", "") or None,
            embedding_dimensions=read.integer("QLAUD_EMBEDDING_DIMENSIONS", 0, 0, 4096),
            environ={
                name: value
                for name, value in environ.items()
                if name.endswith(("_API_KEY", "_BASE_URL"))
                or "_BASE_URL_" in name
                or name.startswith("QLAUD_OAUTH_")
            },
        )
        if read.problems:
            raise SettingsError("\n".join(read.problems))
        return settings

    @property
    def base_url(self) -> str:
        """Where clients reach the front door."""
        return self.public_url or f"http://{self.host}:{self.port}"


class _Reader:
    """Parses one variable at a time and collects what is wrong instead of stopping."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def _parse(self, name: str, default: T, parse: Callable[[str], T], expected: str) -> T:
        raw = self._environ.get(name, "").strip()
        if not raw:
            return default
        try:
            return parse(raw)
        except (ValueError, InvalidOperation):
            self.problems.append(f"{name} must be {expected}")
            return default

    def text(self, name: str, default: str) -> str:
        return self._parse(name, default, str, "text")

    def folder(self, name: str) -> Path | None:
        def parse(raw: str) -> Path:
            path = Path(raw).expanduser().absolute()
            if not path.is_dir():
                raise ValueError
            return path

        return self._parse(name, None, parse, "a folder that exists")

    def secret(self, name: str) -> Secret | None:
        return self._parse(name, None, Secret, "text")

    def key(self, name: str) -> Secret | None:
        def parse(raw: str) -> Secret:
            if not KEY_PATTERN.match(raw):
                raise ValueError
            return Secret(raw)

        return self._parse(name, None, parse, "qlk_live_ followed by 64 hex characters")

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        return self._parse(
            name, default, lambda raw: _within(int(raw), low, high), f"a whole number from {low} to {high}"
        )

    def number(self, name: str, default: float, low: float, high: float) -> float:
        return self._parse(
            name, default, lambda raw: _within(float(raw), low, high), f"a number from {low} to {high}"
        )

    def percent(self, name: str, default_bps: int) -> int:
        def parse(raw: str) -> int:
            bps = Decimal(raw) * 100
            if bps != bps.to_integral_value() or not 0 <= bps <= 100_000:
                raise ValueError
            return int(bps)

        return self._parse(name, default_bps, parse, "a percentage from 0 to 1000 with at most two decimals")

    def flag(self, name: str) -> bool:
        words = {"1": True, "true": True, "yes": True, "on": True}
        words |= {"0": False, "false": False, "no": False, "off": False}

        def parse(raw: str) -> bool:
            if raw.lower() not in words:
                raise ValueError
            return words[raw.lower()]

        return self._parse(name, False, parse, "1 or 0")

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        def parse(raw: str) -> str:
            if raw.lower() not in allowed:
                raise ValueError
            return raw.lower()

        return self._parse(name, default, parse, "one of " + ", ".join(allowed))

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        def parse(raw: str) -> str:
            if raw.split("://", 1)[0] not in schemes or "://" not in raw:
                raise ValueError
            return raw.rstrip("/") if raw.startswith("http") else raw

        return self._parse(
            name, None, parse, "a URL beginning with " + " or ".join(f"{s}://" for s in schemes)
        )


def _within(value: Any, low: Any, high: Any) -> Any:
    if not low <= value <= high:
        raise ValueError
    return value
