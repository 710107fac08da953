"""From what the model sees to what it does: pure, and without memory."""

from dataclasses import replace

from qlaud_actors.scripted import demo, script
from qlaud_actors.scripted.plan import Block, Plan, fitted
from qlaud_actors.scripted.view import View


def decide(view: View) -> Plan:
    """A summary where one is asked for, else the script in the question, else the demo's rules; never over
    `max_tokens`.

    Raises Refusal (400) for a script that cannot be read.
    """
    if told := demo.summary(view):
        return fitted(told, view)
    steps = script.find(view.question)
    plan = script.play(steps, view) if steps else demo.answer(view)
    return fitted(_thoughtful(plan) if view.thinking else plan, view)


def _thoughtful(plan: Plan) -> Plan:
    """The plan with a thought in front, if it has none."""
    if any(block.kind == "thinking" for block in plan.blocks):
        return plan
    thought = Block("thinking", ("Let me ", "think about ", "this."))
    return replace(plan, blocks=(thought, *plan.blocks))
