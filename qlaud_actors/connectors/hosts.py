"""Which hosts a connector's requests may go to: the vendor's, whatever a connection's fields say."""

from collections.abc import Collection
from urllib.parse import urlsplit

from qlaud_actors.connectors.template import names


def host_problem(base_url: str, hosts: Collection[str], settings: Collection[str]) -> str | None:
    """What is wrong with a declared address: it is fixed, or `hosts` says where it may point."""
    templated = list(names(base_url))
    if unknown := [name for name, _ in templated if name not in settings]:
        return f"base_url: {{{unknown[0]}}} is not a field that every way of signing in has, or it is secret"
    host = base_url.removeprefix("https://").split("/")[0]
    if "@" in host or "?" in base_url or "#" in base_url or base_url.endswith("/"):
        return "base_url must be https://host/path without query or slash at the end"
    if list(names(host)) and not hosts:
        return "base_url has a placeholder in its host, so `hosts` must say which hosts are the vendor's"
    return None


def is_allowed(url: str, base_url: str, hosts: Collection[str]) -> bool:
    """Whether a filled address is https at one of `hosts`, or at the fixed host of `base_url`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    if parts.scheme != "https" or "@" in parts.netloc or port not in (None, 443) or not is_name(host):
        return False
    fixed = base_url.removeprefix("https://").split("/")[0]
    return host == fixed.lower() or any(_covers(pattern, host) for pattern in hosts)


def is_name(host: str) -> bool:
    """Only what is a DNS name in letters: no brackets, escapes or separators that others read otherwise."""
    return host.isascii() and all(
        label and label.replace("-", "").replace("_", "").isalnum() for label in host.split(".")
    )


def _covers(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
