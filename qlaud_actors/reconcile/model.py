"""What a check of the books finds: pairs of figures that must be equal, and those that are not."""

import uuid
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pair:
    """One figure, as it should be and as it is, in nano-USD; None is an entry that is missing."""

    what: str
    account_id: uuid.UUID | None
    expected: int | None
    found: int | None


@dataclass(slots=True)
class Check:
    """One rule over all rows: how many it was held against, and the first that break it."""

    name: str
    says: str
    checked: int = 0
    wrong: int = 0
    offenders: list[Pair] = field(default_factory=list)

    def hold(self, pair: Pair, shown: int) -> None:
        """Count a pair; of those that differ the first `shown` are kept."""
        self.checked += 1
        if pair.expected != pair.found:
            self.wrong += 1
            if len(self.offenders) < shown:
                self.offenders.append(pair)


def nearest(found: int, least: int, most: int) -> int:
    """What `found` should be when anything from `least` to `most` is right."""
    return min(max(found, least), most)
