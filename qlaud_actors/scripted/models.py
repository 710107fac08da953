"""The model list, in the shape of the vendor that is asked."""

from typing import Any

MODELS = ("scripted-claude", "scripted-gpt")
"""Shown in the list; any other name is served as well."""

_CREATED = 1_735_689_600
_CREATED_AT = "2025-01-01T00:00:00Z"


def anthropic_list(window: int) -> dict[str, Any]:
    """`GET /v1/models` as Anthropic pages it."""
    data = [
        {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": _CREATED_AT,
            "lifecycle": "active",
            "max_input_tokens": window,
            "max_tokens": window,
            "deprecated_at": None,
            "retires_at": None,
            "capabilities": None,
            "line": None,
        }
        for name in MODELS
    ]
    return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def openai_list() -> dict[str, Any]:
    """`GET /v1/models` as OpenAI lists them."""
    data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "scripted"} for name in MODELS]
    return {"object": "list", "data": data}
