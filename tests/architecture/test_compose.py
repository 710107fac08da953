"""compose.yaml is never run by the tests; it is held against the specification and against the code."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from qlaud_actors import cli
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
VARIABLE = re.compile(r"\$\{(\w+)(?::?[-?][^}]*)?\}")
SECRETS = {"POSTGRES_PASSWORD", "QLAUD_MASTER_KEY", "QLAUD_KEYRING"}


def known_variables() -> set[str]:
    """All names that the settings or the providers' catalogue read."""
    text = (ROOT / "qlaud_actors" / "settings.py").read_text(encoding="utf-8")
    named = set(re.findall(r'read\.\w+\("(\w+)"', text))
    for provider in Catalog.load({}).providers():
        named |= {provider.api_key_env, provider.base_url_env}
    return named


def filled(value: str) -> str:
    """A value as compose would pass it on, with a stand-in for each variable."""
    stand_ins = {"QLAUD_MASTER_KEY": "qlk_live_" + "0" * 64}
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", value))
    return VARIABLE.sub(lambda m: defaults.get(m[1], stand_ins.get(m[1], "stand-in")), value)


def test_it_follows_the_compose_specification() -> None:
    """The file satisfies the specification's own JSON schema."""
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_our_services_run_commands_that_exist() -> None:
    """Each container of ours runs a command of the CLI."""
    assert set(OURS) == {"api", "worker", "migrate"}
    for service in OURS.values():
        program, command, *rest = service["command"]
        assert program == "qlaud"
        assert command in cli.main.commands
        assert rest == []


def test_every_variable_is_one_that_we_read() -> None:
    """No setting in the file is misspelled or forgotten by the code."""
    known = known_variables()
    for service in OURS.values():
        assert set(service["environment"]) <= known


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_settings_accept_what_compose_passes(name: str) -> None:
    """A container starts with the file's own values and defaults."""
    environ = {key: filled(value) for key, value in OURS[name]["environment"].items()}
    settings = Settings.from_env(environ)
    assert settings.database_url is not None
    assert settings.redis_url is not None
    assert settings.chroma_url is not None


def test_addresses_name_services_and_their_ports() -> None:
    """Every URL points at a service of this file, on the port where it listens."""
    ports = {"postgres": 5432, "valkey": 6379, "chroma": 8000}
    environment = SERVICES["api"]["environment"]
    for variable in ("DATABASE_URL", "REDIS_URL", "CHROMA_URL"):
        host, port = re.findall(r"(?:@|//)([a-z]+):(\d+)", environment[variable])[-1]
        assert host in SERVICES
        assert int(port) == ports[host]


def test_ports_and_health_checks_match_the_settings() -> None:
    """What is published and asked is where the process listens."""
    for name, variable, path in (("api", "QLAUD_PORT", "readyz"), ("worker", "QLAUD_WORKER_PORT", "healthz")):
        service = SERVICES[name]
        port = service["environment"][variable]
        assert f"http://127.0.0.1:{port}/{path}" in service["healthcheck"]["test"][-1]
    assert SERVICES["api"]["ports"] == ["${QLAUD_PORT:-8787}:" + SERVICES["api"]["environment"]["QLAUD_PORT"]]


def test_nothing_starts_before_what_it_needs() -> None:
    """The api and the workers wait for the migration, which waits for a healthy database."""
    for name in ("api", "worker"):
        needs = {other: rule["condition"] for other, rule in SERVICES[name]["depends_on"].items()}
        assert needs == {
            "migrate": "service_completed_successfully",
            "postgres": "service_healthy",
            "valkey": "service_healthy",
        }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for service in SERVICES.values():
        assert "healthcheck" in service or service.get("restart") == "no"


def test_no_secret_stands_in_the_file() -> None:
    """Secrets have no default: starting without one is refused by compose."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    required = {name for name, kind in re.findall(r"\$\{(\w+)(:[?-])", text) if kind == ":?"}
    optional = {name for name, kind in re.findall(r"\$\{(\w+)(:[?-])", text) if kind == ":-"}
    assert required == SECRETS
    assert not optional & SECRETS


def test_workers_are_given_time_to_drain() -> None:
    """Docker's grace is longer than what the settings grant to turns in flight."""
    for name in ("api", "worker"):
        drain = float(SERVICES[name]["environment"]["QLAUD_DRAIN_SECONDS"])
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= drain + 10


def test_connections_fit_the_database() -> None:
    """All pools together stay below the database's limit."""
    limit = int(SERVICES["postgres"]["command"][-1].partition("=")[2])
    processes = 1 + SERVICES["worker"]["deploy"]["replicas"]
    assert processes * Settings().database_pool_size < limit
