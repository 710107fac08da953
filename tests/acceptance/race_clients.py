"""The crowd of a race: who asks what, drawn from one mix and one seed, and what they heard."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from cluster import MODEL, OPENAI_MODEL, Api, script
from race_stack import RaceStack

CLIENTS = 300
DEAR_MODEL = "claude-sonnet-4-6"
EMBEDDING_MODEL = "text-embedding-3-small"
MODELS = (MODEL, OPENAI_MODEL, DEAR_MODEL)
"""One at one host, one at two hosts, and a dearer one: a fallback to it has to hold more."""

FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "cut": {"cut_after": 2, "delay_ms": 1},
    "limited once": {"status": 429, "retry_after": 0.05, "times": 1},
    "first host down": {"status": 503, "only": "open"},
    "model down": {"status": 500, "only": "claude-haiku-4-5-20251001"},
    "slow": {"first_byte_ms": 300, "delay_ms": 100},
    "broken": {"error_after": 2, "delay_ms": 1},
    "overloaded": {"status": 529},
    "down once": {"status": 500, "times": 1},
    "our bill unpaid": {"status": 402, "only": "azur"},
    "refused": {"status": 400},
    "gone once": {"cut_after": 0, "times": 1},
    "silent about usage": {"omit_usage": True},
}
"""What may go wrong at the provider: before the first byte, in the middle, for one host or model."""


@dataclass(frozen=True)
class Mix:
    """What a crowd is like; shares are parts of one."""

    routes: tuple[str, ...]
    models: tuple[str, ...]
    faults: tuple[str, ...]
    streamed: float
    leaving: float
    falling_back: float
    keys: int
    cap_micros: int
    wallet: bool
    """The money is a prepaid account's, which all keys share, instead of each key's own."""
    seed: int


@dataclass
class Purse:
    """Money that may be spent, and the keys that may spend it."""

    limit_nanos: int
    keys: list[tuple[str, str]] = field(default_factory=list)
    """Secret and id."""


@dataclass
class Heard:
    """What the crowd was told."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrongly_refused: list[Any] = field(default_factory=list)
    left: int = 0
    calls: int = 0

    def note(self, status: int, body: Any) -> bool:
        """Count an answer; whether another try may help."""
        self.calls += 1
        self.statuses[status] += 1
        if status != 402:
            return False
        error = body["error"]
        if error["spent_micros"] + error["held_micros"] + error["needed_micros"] < error["limit_micros"]:
            self.wrongly_refused.append(error)
        return bool(error["retryable"])


async def purses_for(stack: RaceStack, mix: Mix) -> list[Purse]:
    """Fresh keys with the mix's money."""
    if not mix.wallet:
        capped = {"name": "racer", "max_spend_usd": mix.cap_micros / 1e6}
        made = [await stack.admin.post("/v1/keys", capped) for _ in range(mix.keys)]
        return [Purse(mix.cap_micros * 1_000, [(key["secret"], key["id"])]) for key in made]
    wanted = {"name": "racers", "billing": "prepaid", "starter_credit_usd": mix.cap_micros / 1e6}
    account = await stack.admin.post("/v1/accounts", wanted)
    admin = Api(stack.session, stack.admin.base_url, account["secret"])
    made = [await admin.post("/v1/keys", {"name": "racer"}) for _ in range(mix.keys)]
    return [Purse(mix.cap_micros * 1_000, [(key["secret"], key["id"]) for key in made])]


@dataclass
class Crowd:
    """Clients of one mix on their purses."""

    stack: RaceStack
    mix: Mix
    purses: list[Purse]
    heard: Heard = field(default_factory=Heard)

    async def run(self) -> None:
        """All at once; who is refused for the moment only tries again twice."""
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def drain(self) -> None:
        """Spend what is left, until not even a short answer is affordable: the demand is greater than any
        budget, so what remains then is what could not be used.
        """
        for purse in self.purses:
            for secret, _ in purse.keys[:1]:
                await self._drain(secret)

    async def _drain(self, secret: str) -> None:
        for number in range(40):
            body = _body("/v1/messages", MODEL, {"text": f"drain{number} ", "repeat": 8_000}, 16_000)
            status, answer = await self._post(secret, "/v1/messages", body)
            self.heard.note(status, answer)
            if status == 402:
                return
        raise AssertionError("there is always money left")

    async def _client(self, number: int) -> None:
        dice = random.Random(f"{self.mix.seed}/{number}")
        purse = dice.choice(self.purses)
        secret, _ = dice.choice(purse.keys)
        path, body, leaves = self._request(dice, number)
        for _ in range(3):
            status, answer = await self._ask(dice, secret, path, body, leaves=leaves)
            again = self.heard.note(status, answer)
            if not again and (leaves or status):  # a front door that went away is worth another try
                return
            await asyncio.sleep(dice.uniform(0.2, 0.8))

    def _request(self, dice: random.Random, number: int) -> tuple[str, dict[str, Any], bool]:
        mix = self.mix
        path, model = dice.choice(mix.routes), dice.choice(mix.models)
        words = {"text": f"w{number} ", "repeat": dice.choice([5, 100, 800]), "chunks": 8}
        fault = FAULTS[dice.choice(mix.faults)]
        body = _body(path, model, {**words, **fault}, dice.choice([100, 400, 2_000]))
        if path == "/v1/embeddings":
            return path, body, dice.random() < mix.leaving
        asked = body["body"] if path == "/v1/jobs" else body
        asked["stream"] = dice.random() < mix.streamed
        if dice.random() < mix.falling_back:
            asked["models"] = dice.sample(MODELS, 2)
        return path, body, dice.random() < mix.leaving

    async def _ask(
        self, dice: random.Random, secret: str, path: str, body: dict[str, Any], *, leaves: bool
    ) -> tuple[int, Any]:
        """Status and JSON of a refusal; status 0 when the front door went away or the client did."""
        door = dice.choice(self.stack.doors).api
        headers, url = {"x-api-key": secret}, door.base_url + path
        try:
            if path == "/v1/threads":
                async with door.session.post(url, json={}, headers=headers) as response:
                    if response.status != 201:
                        return 0, None
                    url += f"/{(await response.json())['id']}/messages"
            async with door.session.post(url, json=body, headers=headers) as response:
                if leaves and response.status == 200:
                    await response.content.readany()
                    self.heard.left += 1
                    response.close()
                    return 0, None
                raw = await response.read()
                if not raw or response.status < 300:
                    return response.status, None
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            return 0, None

    async def _post(self, secret: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        door = self.stack.admin
        async with door.session.post(
            door.base_url + path, json=body, headers={"x-api-key": secret}
        ) as response:
            return response.status, await response.json()


def _body(path: str, model: str, step: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens}
    match path:
        case "/v1/threads":
            return {**body, "content": script(step), "tools": []}
        case "/v1/responses":
            return {"model": model, "max_output_tokens": max_tokens, "input": script(step)}
        case "/v1/embeddings":
            whole = {name: value for name, value in step.items() if name not in ("cut_after", "error_after")}
            return {"model": EMBEDDING_MODEL, "input": [script(whole), "word " * 2_000]}
        case "/v1/jobs":
            return {"endpoint": "/v1/messages", "body": _body("/v1/messages", model, step, max_tokens)}
    return {**body, "messages": [{"role": "user", "content": script(step)}]}
