"""Webhook signatures, against values computed with openssl."""

from qlaud_actors.settings import Secret
from qlaud_actors.tools.signature import signed_headers

SECRET = Secret("wsk_" + "0123456789abcdef" * 3)
BODY = '{"name":"web_search","input":{"query":"Zürich"}}'.encode()
CALL, STAMP = "call_00000000000000000000000000000001", 1_793_000_000


def test_both_signatures_have_their_known_values() -> None:
    """The headers of a fixed call are the known ones, in seconds, hex and base64."""
    assert signed_headers(SECRET, CALL, STAMP, BODY) == {
        "x-qlaud-timestamp": "1793000000",
        "x-qlaud-signature": "8f74ea699acd7164c15a89ad6bb03423d6658038e82d338c128b03ce095e6d96",
        "webhook-id": CALL,
        "webhook-timestamp": "1793000000",
        "webhook-signature": "v1,sAJH774tvW9KB+9xE/YufXKXASOorzWxUM7DZlrglpM=",
    }


def test_everything_that_is_signed_changes_the_signature() -> None:
    """Another secret, timestamp or body gives another signature; the id is in the standard one only."""
    first = signed_headers(SECRET, CALL, STAMP, BODY)
    for other in (
        signed_headers(Secret("wsk_other"), CALL, STAMP, BODY),
        signed_headers(SECRET, CALL, STAMP + 1, BODY),
        signed_headers(SECRET, CALL, STAMP, BODY + b" "),
    ):
        assert other["x-qlaud-signature"] != first["x-qlaud-signature"]
        assert other["webhook-signature"] != first["webhook-signature"]
    renamed = signed_headers(SECRET, "call_2", STAMP, BODY)
    assert renamed["x-qlaud-signature"] == first["x-qlaud-signature"]
    assert renamed["webhook-signature"] != first["webhook-signature"]


def test_the_id_of_an_inner_call_has_no_dot() -> None:
    """Standard Webhooks joins id, timestamp and body with dots, so an inner call's id has none."""
    headers = signed_headers(SECRET, "call_1.2", STAMP, BODY)
    assert headers["webhook-id"] == "call_1_2"
    assert (
        headers["webhook-signature"] == signed_headers(SECRET, "call_1_2", STAMP, BODY)["webhook-signature"]
    )
