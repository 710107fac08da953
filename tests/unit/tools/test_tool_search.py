"""Finding tools by intent."""

import pytest

from qlaud_actors.tools.model import Tool
from qlaud_actors.tools.search import NAMED, ConnectionState, Match, rank
from qlaud_actors.tools.search_document import SearchDocument, of_tools
from qlaud_actors.tools.search_index import Index
from qlaud_actors.tools.search_intent import Brands, Intent

CATALOG = {
    "gmail/send_message": "Send an email message to one or more recipients.",
    "gmail/list_threads": "List conversations in a mailbox.",
    "gmail/create_draft": "Save a draft without sending it.",
    "slack/post_message": "Post a message to a channel.",
    "slack/list_channels": "List the channels of a workspace.",
    "linear/create_issue": "Create an issue in a team.",
    "linear/update_issue": "Change title, state or assignee of an issue.",
    "linear/list_projects": "List projects.",
    "github/create_pull_request": "Open a pull request.",
    "github/merge_pull_request": "Merge a pull request.",
    "github/search_code": "Search code in repositories.",
    "notion/create_page": "Create a page in a database.",
    "notion/query_database": "Read rows of a database with filters.",
    "calendar/create_event": "Put a meeting into a calendar.",
    "calendar/list_events": "List meetings of a day.",
    "calendar/delete_event": "Remove a meeting.",
    "drive/upload_file": "Upload a file to a folder.",
    "drive/share_file": "Give somebody access to a file.",
    "stripe/create_refund": "Give money back for a charge.",
    "stripe/list_invoices": "List a customer's invoices.",
    "hubspot/create_contact": "Add a person to the CRM.",
    "hubspot/search_contacts": "Find people in the CRM.",
    "shopify/get_order": "Look up an order by its number.",
    "shopify/trackShipment": "Where a parcel is now.",
    "weather/forecast": "Temperature and rain for a place.",
    "web_search": "Search the web.",
    "translate": "Translate text into another language.",
    "currency/convert": "Convert an amount between currencies.",
    "zendesk/create_ticket": "Open a support ticket.",
    "zendesk/list_tickets": "List support tickets of a customer.",
}
TOOLS = [
    Tool(f"tool_{n}", name, description, {"type": "object"}, "webhook")
    for n, (name, description) in enumerate(CATALOG.items())
]


NO_BRANDS = Brands.of(())


def ranked(intent: str, tools: list[Tool], limit: int) -> list[Match]:
    """By words alone."""
    return rank(Intent.read(intent), [Index.of(of_tools(tools))], limit, NO_BRANDS, {})


def found(intent: str, limit: int = 8) -> list[str]:
    """Names, best first."""
    return [match.document.name for match in ranked(intent, TOOLS, limit)]


@pytest.mark.parametrize(
    ("intent", "best"),
    [
        ("send an email", "gmail/send_message"),
        ("please mail this to Anna", "gmail/send_message"),
        ("make a new issue in Linear", "linear/create_issue"),
        ("show all support tickets", "zendesk/list_tickets"),
        ("refunding a customer", "stripe/create_refund"),
        ("track my shipment", "shopify/trackShipment"),
        ("what is the weather in Vienna", "weather/forecast"),
        ("convert currencies", "currency/convert"),
        ("sharing files", "drive/share_file"),
    ],
)
def test_the_tool_for_an_intent_comes_among_the_first(intent: str, best: str) -> None:
    """Among thirty tools the one that is meant is one of the first three."""
    assert len(TOOLS) == 30
    assert best in found(intent)[:3]


def test_an_email_is_sent_by_mail() -> None:
    """The plain intent "send an email" finds the mail tool before every other message."""
    assert found("send an email")[0] == "gmail/send_message"


def test_nothing_in_common_finds_nothing() -> None:
    """Among many tools, an intent that shares no word with any finds none; so do stop words alone."""
    assert found("photosynthesis") == []
    assert found("the of and") == []
    assert ranked("send an email", [], 8) == []


def test_few_tools_are_all_shown() -> None:
    """When nothing fits and all tools fit into the answer, the reader judges."""
    assert {m.document.name for m in ranked("photosynthesis", TOOLS[:3], 8)} == {t.name for t in TOOLS[:3]}


def test_the_limit_is_kept_and_the_order_is_stable() -> None:
    """No more than asked for, best score first, equal scores by name."""
    assert len(found("list", 4)) == 4
    first = ranked("list all", TOOLS, 25)
    assert first == sorted(first, key=lambda match: (-round(match.score, 6), match.document.name))
    again = ranked("list all", TOOLS[::-1], 25)
    assert [m.document.name for m in again] == [m.document.name for m in first]


def test_parameter_names_count() -> None:
    """A word that only a parameter's name has finds its tool; odd schemas do no harm."""
    schema = {"type": "object", "properties": {"latitude": {"type": "number"}}}
    place = Tool("tool_p", "place", "A place.", schema, "webhook")
    odd = Tool("tool_o", "odd", "Odd.", {"type": "object", "properties": 7}, "webhook")
    assert [m.document.name for m in ranked("latitude", [odd, place, *TOOLS], 8)] == ["place"]


def action(vendor: str, name: str, title: str, *synonyms: str) -> SearchDocument:
    return SearchDocument(
        f"{vendor}/{name}", "mcp", title, title, "write", synonyms=synonyms, connector=vendor, vendor=vendor
    )


MAILERS = [action(v, "send", "Send an e-mail", "mail somebody") for v in ("alpha", "beta", "gamma")]
BRANDS = Brands({v: frozenset((v,)) for v in ("alpha", "beta", "gamma")}, NO_BRANDS.speller)


def names(intent: str, documents: list[SearchDocument], **states: ConnectionState) -> list[str]:
    matches = rank(Intent.read(intent), [Index.of(documents)], 8, BRANDS, states)
    return [match.document.name for match in matches]


def test_a_connected_vendor_comes_before_its_equals_and_not_before_a_better_match() -> None:
    """The prior decides between equals only; one that has expired has none."""
    connected = ConnectionState("connected", "Ada", "end_user")
    assert names("send an email", MAILERS) == ["alpha/send", "beta/send", "gamma/send"]
    assert names("send an email", MAILERS, gamma=connected)[0] == "gamma/send"
    assert names("send an email", MAILERS, gamma=ConnectionState("expired"))[0] == "alpha/send"
    other = action("gamma", "list", "List sent e-mail")
    assert names("send an email", [*MAILERS[:2], other], gamma=connected)[0] == "alpha/send"


def test_a_named_vendor_comes_first() -> None:
    """Who names a vendor means it, also before a connected one."""
    connected = ConnectionState("connected", "Ada", "end_user")
    assert names("send an email with beta", MAILERS, gamma=connected)[0] == "beta/send"
    assert NAMED > 0


def test_one_vendor_does_not_fill_the_first_page_unless_it_is_named() -> None:
    """Three tools of a vendor at most where others fit too; all of them when it is named."""
    many = [action("alpha", f"send_{n}", f"Send an e-mail {n}") for n in range(9)]
    page = names("send an email", [*many, *MAILERS[1:]])
    assert {"beta/send", "gamma/send"} <= set(page[:5])
    assert sum(name.startswith("alpha/") for name in page[:5]) == 3
    assert all(name.startswith("alpha/") for name in names("send an email by alpha", many + MAILERS[1:]))


def test_typing_errors_and_questions_are_understood() -> None:
    """A letter wrong is forgiven; a question finds what reads before what changes."""
    assert found("refudn a charge")[0] == "stripe/create_refund"
    assert Intent.read("which mails came in?").asks == 1
    assert Intent.read("please delete the mail").asks == -1
    assert Intent.read("a nice day").asks == 0
