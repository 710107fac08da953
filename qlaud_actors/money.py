"""Integer money. Nano-USD in the database, pico-USD per token in prices, micro-USD at the API.

A charge is rounded up once, to the nano-dollar, in `charge_nanos`. What the API shows in
micro-dollars is derived from exact nano sums and rounded up for display only.
"""

from decimal import Decimal, InvalidOperation

NANOS_PER_USD = 1_000_000_000
NANOS_PER_MICRO = 1_000
PICOS_PER_NANO = 1_000
BASIS_POINTS = 10_000
MAX_USD = 1_000_000_000
"""The largest amount that we accept anywhere: nanos stay far inside 64 bits."""


def charge_nanos(cost_picos: int, markup_bps: int) -> int:
    """What a caller pays for a provider cost: markup added exactly, rounded up to one nano-USD."""
    scaled = cost_picos * (BASIS_POINTS + markup_bps)
    return -(-scaled // (BASIS_POINTS * PICOS_PER_NANO))


def usd_to_nanos(amount: float | str | Decimal) -> int:
    """Dollars as written (no binary rounding) to nano-USD, rounded down below a nano.

    Raises ValueError when the amount is not finite, negative or above `MAX_USD`.
    """
    try:
        dollars = Decimal(str(amount))
    except InvalidOperation as error:
        raise ValueError(f"not an amount of money: {amount!r}") from error
    if not dollars.is_finite() or dollars < 0 or dollars > MAX_USD:
        raise ValueError(f"an amount must be between 0 and {MAX_USD} USD")
    return int(dollars * NANOS_PER_USD)


def nanos_to_micros(nanos: int) -> int:
    """Micro-USD for display, rounded away from zero so that spend is never understated."""
    return -(-nanos // NANOS_PER_MICRO) if nanos >= 0 else nanos // NANOS_PER_MICRO


def nanos_to_usd(nanos: int) -> float:
    """Dollars for display; exact to the float's 15 digits."""
    return nanos / NANOS_PER_USD  # of two integers: rounded once


def format_usd(nanos: int) -> str:
    """Dollars in words for people: `$0.001234` (6 digits, rounded up)."""
    return f"${Decimal(nanos_to_micros(nanos)) / 1_000_000:.6f}"
