"""How an answer is read that is no text of a model's: vectors, pictures, sound, transcripts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qlaud_actors.usage import Usage

Form: TypeAlias = Literal["json", "text_of_json", "text", "bytes", "events", "sound_of_events"]
"""How it comes and leaves: a JSON body as it is, or the `text` in it alone; a text; bytes as they come;
events as they come, or the sound in them alone.
"""


def tells_nothing(_: object) -> Usage | None:
    """Of an answer that tells no usage."""
    return None


@dataclass(frozen=True, slots=True)
class Reading:
    """What is looked for in an answer."""

    form: Form
    sent: Usage
    """What the request itself tells of its usage: billed when the answer tells none."""
    read: Callable[[dict[str, Any]], Usage | None] = tells_nothing
    """The usage that a JSON answer or an event tells."""
    read_text: Callable[[bytes], Usage | None] = tells_nothing
