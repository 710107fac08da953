"""The built-in calculator: a small grammar over decimal numbers; no names, no code, bounded work. Pure.

sum     = product (("+" | "-") product)*
product = sign (("*" | "/" | "%") sign)*
sign    = ("-" | "+") sign | power
power   = item ["^" sign]
item    = number | "(" sum ")" | function "(" sum ("," sum)* ")"
"""

import re
from collections.abc import Callable
from decimal import (
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)

from qlaud_actors.tools.model import ToolOutcome

DIGITS = 50
MAX_EXPONENT = 1_000
"""Results have at most so many digits before or after the point."""

MAX_DEPTH = 50
_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|([a-z]+)|(\*\*|[-+*/%^(),]))", re.ASCII)


class CalculationProblem(Exception):
    """The expression cannot be calculated; the message says why."""


def calculate(expression: str) -> ToolOutcome:
    """`{result, exact}`, or what is wrong with the expression."""
    context = Context(prec=DIGITS, Emax=MAX_EXPONENT, Emin=-MAX_EXPONENT, rounding=ROUND_HALF_UP)
    context.traps[Overflow] = context.traps[InvalidOperation] = context.traps[DivisionByZero] = True
    try:
        reader = _Reader(_tokens(expression), context)
        result = reader.whole()
    except CalculationProblem as problem:
        return ToolOutcome(f"This cannot be calculated: {problem}.", is_error=True)
    except (DivisionByZero, ZeroDivisionError):
        return ToolOutcome("This cannot be calculated: it divides by zero.", is_error=True)
    except DecimalException:
        words = f"This cannot be calculated: a number is undefined or has more than {MAX_EXPONENT} digits."
        return ToolOutcome(words, is_error=True)
    return ToolOutcome({"result": _plain(result), "exact": not context.flags[Inexact]})


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _tokens(expression: str) -> list[str]:
    tokens, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise CalculationProblem(f"{text[at : at + 10].strip()!r} is not understood")
        tokens.append("^" if match[3] == "**" else match[1] or match[2] or match[3])
        at = match.end()
    return tokens


class _Reader:
    def __init__(self, tokens: list[str], context: Context) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._context = context

    def whole(self) -> Decimal:
        result = self._sum()
        if self._at < len(self._tokens):
            raise CalculationProblem(f"{self._next()!r} is not expected there")
        return result

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise CalculationProblem("it ends too early")
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if (found := self._next()) != token:
            raise CalculationProblem(f"{found!r} stands where {token!r} is expected")

    def _sum(self) -> Decimal:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculationProblem("it is nested too deep")
        result = self._product()
        while (sign := self._peek()) in ("+", "-") and sign:
            self._next()
            other = self._product()
            combine = self._context.add if sign == "+" else self._context.subtract
            result = combine(result, other)
        self._depth -= 1
        return result

    def _product(self) -> Decimal:
        result = self._signed()
        while (sign := self._peek()) in ("*", "/", "%") and sign:
            self._next()
            other = self._signed()
            match sign:
                case "*":
                    result = self._context.multiply(result, other)
                case "/":
                    result = self._context.divide(result, other)
                case _:
                    result = self._context.remainder(result, other)
        return result

    def _signed(self) -> Decimal:
        negative = False
        while (sign := self._peek()) in ("+", "-") and sign:
            self._next()
            negative ^= sign == "-"
        result = self._power()
        return self._context.minus(result) if negative else result

    def _power(self) -> Decimal:
        base = self._item()
        if self._peek() != "^":
            return base
        self._next()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CalculationProblem("it is nested too deep")
        exponent = self._signed()
        self._depth -= 1
        if abs(exponent) > MAX_EXPONENT * 4:
            raise CalculationProblem("an exponent is too large")
        if base == 0 and exponent < 0:
            raise CalculationProblem("it divides by zero")
        return self._context.power(base, exponent)

    def _item(self) -> Decimal:
        found = self._next()
        if found == "(":
            result = self._sum()
            self._expect(")")
            return result
        if found[0].isalpha():
            return self._function(found)
        if found[0] in "0123456789.":
            return self._context.create_decimal(found)
        raise CalculationProblem(f"{found!r} is not expected there")

    def _function(self, name: str) -> Decimal:
        if name not in FUNCTIONS:
            raise CalculationProblem(f"there is no {name!r}; known are {', '.join(FUNCTIONS)}")
        self._expect("(")
        values = [self._sum()]
        while self._peek() == ",":
            self._next()
            values.append(self._sum())
        self._expect(")")
        least, most, function = FUNCTIONS[name]
        if not least <= len(values) <= most:
            raise CalculationProblem(f"{name!r} does not take {len(values)} values")
        return function(self._context, values)


def _rounded(context: Context, values: list[Decimal]) -> Decimal:
    places = values[1] if len(values) > 1 else Decimal(0)
    if places != places.to_integral_value() or abs(places) > DIGITS:
        raise CalculationProblem(f"round takes a whole number of places up to {DIGITS}")
    return values[0].quantize(Decimal(1).scaleb(-int(places)), rounding=ROUND_HALF_UP, context=_wide(context))


def _wide(context: Context) -> Context:
    """For rounding on purpose, which is not a loss to be told."""
    return Context(prec=DIGITS * 3, Emax=context.Emax, Emin=context.Emin)


def _summed(context: Context, values: list[Decimal]) -> Decimal:
    result = Decimal(0)
    for value in values:
        result = context.add(result, value)
    return result


def _whole(rounding: str) -> Callable[[Context, list[Decimal]], Decimal]:
    return lambda _, values: values[0].to_integral_value(rounding=rounding)


FUNCTIONS: dict[str, tuple[int, int, Callable[[Context, list[Decimal]], Decimal]]] = {
    "abs": (1, 1, lambda context, values: context.abs(values[0])),
    "ceil": (1, 1, _whole(ROUND_CEILING)),
    "floor": (1, 1, _whole(ROUND_FLOOR)),
    "max": (1, 100, lambda _, values: max(values)),
    "min": (1, 100, lambda _, values: min(values)),
    "round": (1, 2, _rounded),
    "sqrt": (1, 1, lambda context, values: context.sqrt(values[0])),
    "sum": (1, 100, _summed),
}
"""By name: how many values it takes at least and at most, and what it does."""
