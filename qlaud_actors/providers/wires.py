"""The tables of dialects: what a catalogue entry may name as its `wire`, and as `surfaces` beside it."""

from collections.abc import Mapping

from qlaud_actors.providers.anthropic import AnthropicWire
from qlaud_actors.providers.openai import OpenAIWire
from qlaud_actors.providers.responses import ResponsesSurface
from qlaud_actors.providers.wire import Surface, Wire

WIRES: Mapping[str, Wire] = {"anthropic": AnthropicWire(), "openai": OpenAIWire()}
SURFACES: Mapping[str, Surface] = {**WIRES, "responses": ResponsesSurface()}
