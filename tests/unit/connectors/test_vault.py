"""The cryptography of secrets at rest."""

import base64
import os
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from fakes.old_vault import seal_old
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.connectors.vault import DataKey, Keyring, Place, UnknownKey, VaultError
from qlaud_actors.settings import SettingsError

OLD, NEW = (f"{name}:{base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("old", "new")))
OLD_BYTES = bytes(32)
PLAIN = "wsk_söcret"
ACCOUNT, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
PLACE = Place(ACCOUNT, "tool:tool_1")
KEY = DataKey("d1", ACCOUNT, bytes([7]) * 32)


def broken_versions(value: bytes) -> list[bytes]:
    """The value with each byte changed, cut off at each length, and made longer."""
    changed = [
        value[:n] + bytes([value[n] ^ flip]) + value[n + 1 :] for n in range(len(value)) for flip in (1, 0x80)
    ]
    return [*changed, *(value[:n] for n in range(len(value))), value + b"\x00", os.urandom(64)]


def test_what_was_sealed_opens_in_its_place() -> None:
    """A sealed secret opens where it belongs, does not contain it, and is different every time."""
    sealed = KEY.seal(PLAIN, PLACE)
    assert KEY.open(sealed, PLACE).reveal() == PLAIN
    assert PLAIN.encode() not in sealed
    assert KEY.seal(PLAIN, PLACE) != sealed


@settings(max_examples=60, deadline=None)
@given(plain=st.text(), owner=st.text(max_size=40), field=st.text(max_size=40), number=st.uuids())
def test_whatever_is_sealed_opens_there_and_nowhere_else(
    plain: str, owner: str, field: str, number: uuid.UUID
) -> None:
    """Any text comes back from any place; with any part of the place changed or shifted it does not."""
    place = Place(number, owner, field)
    key = DataKey.generate(number)
    sealed = key.seal(plain, place)
    assert key.open(sealed, place).reveal() == plain
    elsewhere = [
        replace(place, owner=owner + "x"),
        replace(place, field=field + "x"),
        replace(place, owner=owner + field, field="") if field else replace(place, owner=owner + "\x00"),
        replace(place, account_id=uuid.UUID(int=number.int ^ 1)),
    ]
    for wrong in elsewhere:
        with pytest.raises(VaultError, match="does not open here"):
            key.open(sealed, wrong)


def test_owner_and_field_cannot_be_swapped() -> None:
    """Two parts of a place in each other's stead make another place."""
    with pytest.raises(VaultError):
        KEY.open(KEY.seal(PLAIN, Place(ACCOUNT, "a", "b")), Place(ACCOUNT, "b", "a"))


@pytest.mark.parametrize("kind", ["secret", "wrapped", "old"])
def test_a_change_of_any_byte_is_noticed(kind: str) -> None:
    """Whichever byte is changed, cut off or added, nothing opens: secrets, data keys, old secrets."""
    ring = Keyring.parse(f"{NEW},{OLD}")
    open_it: Callable[[bytes], object]
    match kind:
        case "secret":
            value, open_it = KEY.seal(PLAIN, PLACE), lambda v: KEY.open(v, PLACE)
        case "wrapped":
            value, open_it = ring.wrap(KEY), lambda v: ring.unwrap(v, ACCOUNT, KEY.id)
        case _:
            value = seal_old("old", OLD_BYTES, PLAIN, "tool", ACCOUNT, "tool_1")
            open_it = lambda v: ring.open_old(v, PLACE)  # noqa: E731
    open_it(value)
    for broken in broken_versions(value):
        with pytest.raises(VaultError):
            open_it(broken)


def test_a_wrapped_key_is_bound_to_its_account_and_id() -> None:
    """A data key that is copied to another account's row, or renamed, does not unwrap."""
    ring = Keyring.parse(NEW)
    wrapped = ring.wrap(KEY)
    assert ring.unwrap(wrapped, ACCOUNT, KEY.id) == KEY
    for account, key_id in ((OTHER, KEY.id), (ACCOUNT, "d2")):
        with pytest.raises(VaultError, match="does not open here"):
            ring.unwrap(wrapped, account, key_id)


def test_the_newest_key_wraps_and_all_keys_unwrap() -> None:
    """After a rotation old wrappings still open, new ones are made with the first key."""
    both = Keyring.parse(f"{NEW},{OLD}")
    assert both.unwrap(Keyring.parse(OLD).wrap(KEY), ACCOUNT, KEY.id) == KEY
    assert Keyring.parse(NEW).unwrap(both.wrap(KEY), ACCOUNT, KEY.id) == KEY


def test_an_unknown_key_is_named() -> None:
    """What is under a key that the ring has lost says which; the same id with other bytes does not open."""
    wrapped = Keyring.parse(OLD).wrap(KEY)
    old = seal_old("old", OLD_BYTES, PLAIN, "tool", ACCOUNT, "tool_1")
    with pytest.raises(UnknownKey, match="'old', which is not in the key ring"):
        Keyring.parse(NEW).unwrap(wrapped, ACCOUNT, KEY.id)
    with pytest.raises(UnknownKey, match="'old'"):
        Keyring.parse(NEW).open_old(old, PLACE)
    with pytest.raises(VaultError, match="does not open here"):
        Keyring.parse("old:" + NEW.partition(":")[2]).unwrap(wrapped, ACCOUNT, KEY.id)
    with pytest.raises(VaultError, match="'d1', which is not the account's"):
        replace(KEY, id="d2").open(KEY.seal(PLAIN, PLACE), PLACE)


def test_a_renamed_key_does_not_open() -> None:
    """A value is bound to the id of its key as well: two ids of the same bytes are two keys."""
    encoded = OLD.partition(":")[2]
    wrapped = Keyring.parse(f"aaa:{encoded}").wrap(KEY)
    with pytest.raises(VaultError):
        Keyring.parse(f"bbb:{encoded}").unwrap(wrapped.replace(b"aaa", b"bbb"), ACCOUNT, KEY.id)


def test_a_form_does_not_pass_for_another() -> None:
    """A wrapped key, a secret and an old secret are no use in one another's place."""
    ring = Keyring({"d1": KEY.key})
    sealed, wrapped = KEY.seal(PLAIN, PLACE), ring.wrap(KEY)
    old = seal_old("d1", KEY.key, PLAIN, "tool", ACCOUNT, "tool_1")
    assert ring.open_old(old, PLACE).reveal() == PLAIN
    for form in (0, 1, 2, 3, 4):
        for value in (sealed, wrapped, old):
            if value[0] == form:
                continue
            posing = bytes([form]) + value[1:]
            for attempt in (
                lambda v: KEY.open(v, PLACE),
                lambda v: ring.unwrap(v, ACCOUNT, KEY.id),
                lambda v: ring.open_old(v, PLACE),
            ):
                with pytest.raises(VaultError):
                    attempt(posing)


def test_an_old_secret_opens_in_its_row_only() -> None:
    """What was sealed before there were data keys still opens, and only where it was."""
    ring = Keyring.parse(f"{NEW},{OLD}")
    old = seal_old("old", OLD_BYTES, PLAIN, "tool", ACCOUNT, "tool_1")
    assert ring.open_old(old, PLACE).reveal() == PLAIN
    for wrong in (
        Place(OTHER, "tool:tool_1"),
        Place(ACCOUNT, "tool:tool_2"),
        Place(ACCOUNT, "webhook:tool_1"),
    ):
        with pytest.raises(VaultError, match="does not open here"):
            ring.open_old(old, wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "nokey",
        "k:",
        "k\n" + OLD[3:],
        "k:c2hvcnQ=",
        "K:" + OLD[4:],
        f"{OLD},{OLD}",
        "k:Ⅷ",
        ":" + OLD[4:],
        f"{OLD[:-1]}",
    ],
)
def test_a_malformed_key_ring_is_refused_without_quoting_it(text: str) -> None:
    """Missing, short, doubled and misspelled keys are an error that shows none of them."""
    with pytest.raises(SettingsError) as caught:
        Keyring.parse(text)
    assert OLD[4:20] not in str(caught.value)


def test_a_generated_key_ring_parses() -> None:
    """A new key ring has one key; two are never alike."""
    first, second = Keyring.generate(), Keyring.generate()
    assert len(Keyring.parse(f" {first} , {second} ").keys) == 2


def test_no_secret_shows_in_a_repr() -> None:
    """Neither keys nor plain text appear when objects or errors are printed."""
    ring = Keyring.parse(OLD)
    sealed = KEY.seal(PLAIN, PLACE)
    opened = KEY.open(sealed, PLACE)
    with pytest.raises(VaultError) as caught:
        KEY.open(sealed, replace(PLACE, field="other"))
    shown = f"{ring!r} {ring} {KEY!r} {KEY} {opened!r} {opened} {caught.value!r} {caught.value.__cause__!r}"
    assert PLAIN not in shown
    assert repr(bytes(32)) not in shown
    assert repr(KEY.key) not in shown
    assert OLD.partition(":")[2] not in shown
