"""The table of wires: what a provider's catalogue entry may name as its `wire`."""

from collections.abc import Mapping

from qlaud_actors.providers.anthropic import AnthropicWire
from qlaud_actors.providers.openai import OpenAIWire
from qlaud_actors.providers.wire import Wire

WIRES: Mapping[str, Wire] = {"anthropic": AnthropicWire(), "openai": OpenAIWire()}
