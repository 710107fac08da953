"""Notion: a workspace with one shared page, under which pages are made."""

from typing import Any

from aiohttp import web
from fakes.vendors.server import Answer, Call, VendorDouble, operations

PARENT = "59833787-2cf9-4fdf-8782-e53db20768a5"
AT = "2026-11-24T10:00:00.000Z"
CREATE, APPEND = "POST /v1/pages", "PATCH /v1/blocks/{block_id}/children"
VERSIONS = ("2022-06-28", "2025-09-03")


class Notion(VendorDouble):
    """An integration to which one page is shared."""

    slug = "notion"
    file = "notion"

    async def read_body(self, request: web.Request, said: dict[str, Any]) -> tuple[Any, list[str]]:
        """As described, but for the children of a new page: the document has texts where blocks are meant."""
        if said is operations(self.file)[CREATE]:
            blocks = operations(self.file)[APPEND]["body"]["properties"]["children"]
            body = said["body"]
            said = {**said, "body": {**body, "properties": {**body["properties"], "children": blocks}}}
        read, problems = await super().read_body(request, said)
        if request.headers.get("Notion-Version") not in VERSIONS:
            problems.append("Notion-Version header failed validation")
        return read, problems

    def answer(self, call: Call) -> Answer:
        """Who the token is, what can be found, a new page."""
        match call.operation:
            case "GET /v1/users/me":
                bot = {"owner": {"type": "workspace", "workspace": True}, "workspace_name": "Acme Wiki"}
                example = operations(self.file)[call.operation]["example"]
                return Answer(200, {**example, "name": "Qlaud helper", "bot": bot})
            case "POST /v1/search":
                pages = [_page(PARENT, "Team home", {"type": "workspace", "workspace": True}), *self.made]
                listed = {"object": "list", "results": pages, "next_cursor": None, "has_more": False}
                return Answer(200, listed)
        return self._create(call.body) if call.operation == CREATE else self.unknown()

    def _create(self, asked: dict[str, Any]) -> Answer:
        parent = asked["parent"].get("page_id", "")
        if parent != PARENT:
            words = f"Could not find page with ID: {parent}. Make sure the relevant pages are shared."
            return _refusal(404, "object_not_found", words)
        rich = asked["properties"].get("title", {}).get("title", ())
        title = "".join(piece["text"]["content"] for piece in rich)
        page_id = f"00000000-0000-4000-8000-{len(self.made) + 1:012d}"
        page = _page(page_id, title, {"type": "page_id", "page_id": parent})
        self.made.append(page)
        return Answer(200, page)

    def unauthenticated(self, credential: str) -> Answer:
        """As its API refuses a token."""
        return _refusal(401, "unauthorized", "API token is invalid.")

    def invalid(self, problems: list[str]) -> Answer:
        """As its API refuses a body."""
        return _refusal(400, "validation_error", f"body failed validation: {'; '.join(problems)}")

    def unknown(self) -> Answer:
        """No such path."""
        return _refusal(400, "invalid_request_url", "Invalid request URL.")


def _page(page_id: str, title: str, parent: dict[str, Any]) -> dict[str, Any]:
    rich = {"type": "text", "text": {"content": title, "link": None}, "plain_text": title}
    return {
        "object": "page",
        "id": page_id,
        "created_time": AT,
        "last_edited_time": AT,
        "parent": parent,
        "archived": False,
        "in_trash": False,
        "properties": {"title": {"id": "title", "type": "title", "title": [rich]}},
        "url": f"https://www.notion.so/{page_id.replace('-', '')}",
    }


def _refusal(status: int, code: str, message: str) -> Answer:
    request_id = "9d4f7a53-7b2c-4a8e-9f0e-1c2d3e4f5a6b"
    return Answer(
        status,
        {"object": "error", "status": status, "code": code, "message": message, "request_id": request_id},
    )
