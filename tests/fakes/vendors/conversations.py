"""Five conversations, one per vendor: what the user wants, what the model calls, what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fakes.vendors import linear, notion, slack
from fakes.vendors.github import OWNER, REPO, GitHub
from fakes.vendors.linear import Linear
from fakes.vendors.notion import Notion
from fakes.vendors.server import VendorDouble
from fakes.vendors.slack import Slack
from fakes.vendors.stripe import Stripe

SEARCH, SCHEMAS = "qlaud_search_tools", "qlaud_get_tool_schemas"
EXECUTE, CONNECTIONS = "qlaud_multi_execute", "qlaud_manage_connections"
LINK = r"https?://[^\s\"\\]+/connect/[\w-]+"


@dataclass(frozen=True)
class Conversation:
    """One vendor's: the double, its credential, and the one action that the user asks for."""

    slug: str
    name: str
    make: Callable[[str], VendorDouble]
    credential: str
    label: str
    """What the credential's field is called on the connect page."""
    connected_as: str
    wish: str
    intent: str
    action: str
    arguments: dict[str, Any]
    made_id: str
    """What names the thing that is made, and how it looks."""
    id_pattern: str

    @property
    def tool(self) -> str:
        """The action's name for a model."""
        return f"{self.slug}/{self.action}"

    @property
    def authorization(self) -> str:
        """The header with the right credential."""
        return self.credential if self.slug == "linear" else f"Bearer {self.credential}"

    def double(self) -> VendorDouble:
        """The vendor, as it is before anything happened."""
        return self.make(self.credential)

    def asking(self) -> list[dict[str, Any]]:
        """The model's lines until it hands out the link."""
        return [
            calling(SEARCH, intent=self.intent),
            calling(SCHEMAS, tools=[self.tool]),
            self.executing(),
            calling(CONNECTIONS, action="connect", tool=self.tool),
            {"text": "Please connect your account here: {quote}", "quote": LINK},
        ]

    def going_on(self) -> list[dict[str, Any]]:
        """The model's lines once the user says that it is done."""
        return [self.executing(), {"text": "Done, it is {quote}.", "quote": self.id_pattern}]

    def executing(self) -> dict[str, Any]:
        """The call itself."""
        return calling(EXECUTE, calls=[{"tool": self.tool, "args": self.arguments}])


def calling(name: str, **arguments: Any) -> dict[str, Any]:
    """A line of the model that calls one tool."""
    return {"tools": [{"name": name, "input": arguments}]}


CONVERSATIONS = {
    talk.slug: talk
    for talk in (
        Conversation(
            slug="linear",
            name="Linear",
            make=Linear,
            credential="lin_api_canary0Linear0Secret0Value0000000001",
            label="API key",
            connected_as="Ada Lovelace (Acme)",
            wish="Please file a Linear ticket: the login page is slow.",
            intent="create a ticket in Linear",
            action="create_issue",
            arguments={
                "team_id": linear.TEAM["id"],
                "title": "The login page is slow",
                "description": 'It takes **9 s**: "too long", 😀 says Ada.',
                "priority": 2,
            },
            made_id="ENG-1",
            id_pattern=r"ENG-\d+",
        ),
        Conversation(
            slug="github",
            name="GitHub",
            make=GitHub,
            credential="github_pat_canary0GitHub0Secret0Value000000002",
            label="Personal access token",
            connected_as="ada-lovelace",
            wish="Open an issue in acme/website: the footer overlaps.",
            intent="open an issue in a GitHub repository",
            action="create_issue",
            arguments={"owner": OWNER, "repo": REPO, "title": "The footer overlaps", "labels": ["bug"]},
            made_id="https://github.com/acme/website/issues/1",
            id_pattern=r"https://github\.com/acme/website/issues/\d+",
        ),
        Conversation(
            slug="notion",
            name="Notion",
            make=Notion,
            credential="ntn_canary0Notion0Secret0Value0000000000003",
            label="Internal integration secret",
            connected_as="Qlaud helper (Acme Wiki)",
            wish="Write a Notion page about the release.",
            intent="create a page in Notion",
            action="create_page",
            arguments={"parent_page_id": notion.PARENT, "title": "Release 1.0", "text": "Faster.\nCheaper."},
            made_id="00000000-0000-4000-8000-000000000001",
            id_pattern=r"00000000-0000-4000-8000-\d{12}",
        ),
        Conversation(
            slug="slack",
            name="Slack",
            make=Slack,
            credential="xoxb-canary-Slack-Secret-Value-0000000004",
            label="OAuth token",
            connected_as="ada (Acme)",
            wish="Tell the team on Slack that we ship today.",
            intent="send a message to a Slack channel",
            action="post_message",
            arguments={"channel": slack.CHANNEL["id"], "text": "We ship today :rocket:"},
            made_id="1764000000.000100",
            id_pattern=r"17640\d+\.\d{6}",
        ),
        Conversation(
            slug="stripe",
            name="Stripe",
            make=Stripe,
            credential="rk_test_canary0Stripe0Secret0Value00000005",
            label="Restricted or secret key",
            connected_as="Acme Ltd (acct_1Acme0000000000)",
            wish="Add Ada as a customer in Stripe.",
            intent="create a customer in Stripe",
            action="create_customer",
            arguments={"email": "ada@acme.test", "name": "Ada Lovelace", "metadata": {"plan": "pro"}},
            made_id="cus_00000000000001",
            id_pattern=r"cus_\d{14}",
        ),
    )
}
