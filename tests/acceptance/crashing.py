"""A process that dies like `kill -9` at one chosen line: right before or right after a call.

A point is `<function> <before|after> <nth call>`. The code of the product knows nothing of it: the function
is wrapped from outside.
"""

import os
from typing import Any

from qlaud_actors.connectors import sending, sign_in
from qlaud_actors.conversation import approvals, call_journal, journal, log, mailbox, summaries
from qlaud_actors.deferred import queue
from qlaud_actors.deliveries import courier
from qlaud_actors.gateway import admission
from qlaud_actors.tools import webhook

PLACES = {
    "claim": (mailbox, "claim"),
    "open": (journal.StepJournal, "open"),
    "settle": (journal.StepJournal, "settle"),
    "begin": (call_journal.ToolJournal, "begin"),
    "webhook": (webhook.WebhookCaller, "call"),
    "finish_call": (call_journal.ToolJournal, "finish"),
    "save_results": (journal.StepJournal, "save_results"),
    "ask": (approvals.TurnApprovals, "_ask"),
    "park": (approvals.TurnApprovals, "_park"),
    "open_summary": (summaries.SummaryJournal, "_open"),
    "settle_summary": (summaries.SummaryJournal, "_settle"),
    "finish_turn": (mailbox, "finish"),
    "append": (log.Appender, "append"),
    "admit": (admission.Admission, "admit"),
    "settle_call": (admission.Ticket, "settle"),
    "end_job": (queue, "end"),
    "send": (sending.VendorSender, "send"),
    "refresh": (sign_in.SignIn, "refresh"),
    "attempt": (courier.Courier, "_attempt"),
}


def arm(point: str) -> None:
    """Wrap the chosen function."""
    name, side, nth = point.split()
    owner, attribute = PLACES[name]
    original: Any = getattr(owner, attribute)
    seen = 0

    async def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == int(nth) and side == "before":
            os._exit(9)
        result = await original(*args, **kwargs)
        if seen == int(nth) and side == "after":
            os._exit(9)
        return result

    setattr(owner, attribute, dying)
