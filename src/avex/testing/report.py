"""Running rules one after the other and reporting all that are broken, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from avex._core.errors import AvexError, UnknownNameError, did_you_mean

T = TypeVar("T")
Rule = Callable[[T], Iterable[str]]


class ConformanceError(AvexError, AssertionError):
    """Something breaks rules that avex relies on.

    Attributes:
        violations: Pairs of a rule's name and what breaks it, in words.
    """

    def __init__(self, subject: str, violations: Collection[tuple[str, str]], num_rules: int) -> None:
        self.violations = tuple(violations)
        broken = len({rule for rule, _ in self.violations})
        lines = [f"- {rule}: {text}" for rule, text in self.violations]
        super().__init__("\n".join([f"{subject} breaks {broken} of {num_rules} rules:", *lines]))

    def __reduce__(self) -> tuple[object, ...]:
        # Built from three arguments but holding one: the default would not unpickle.
        return _rebuilt, (str(self), self.violations)


def _rebuilt(message: str, violations: tuple[tuple[str, str], ...]) -> ConformanceError:
    error = ConformanceError.__new__(ConformanceError)
    error.args, error.violations = (message,), violations
    return error


def run_rules(
    subject: str,
    rules: Mapping[str, Rule[T]],
    make_argument: Callable[[], T],
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
) -> None:
    """Run rules; each yields what it found broken.

    Args:
        subject: What is checked, for the message.
        rules: Name to rule.
        make_argument: Makes what each rule is called with.
        only: Names of the rules to run; None runs all.
        skip: Names of rules to leave out.

    Raises:
        ConformanceError: A rule yielded something, or raised.
        UnknownNameError: `only` or `skip` names no rule.

    Example:
        >>> run_rules("Two", {"even": lambda n: [] if n % 2 == 0 else [f"{n} is odd"]}, lambda: 2)
    """
    for name in (*(only or ()), *skip):
        if name not in rules:
            raise UnknownNameError(
                f"There is no rule '{name}'.{did_you_mean(name, rules)} Known: {', '.join(rules)}."
            )
    chosen = [name for name in rules if (only is None or name in only) and name not in skip]
    violations: list[tuple[str, str]] = []
    for name in chosen:
        try:
            # Extended step by step: what a rule found before it raised counts too.
            violations.extend((name, text) for text in rules[name](make_argument()))
        except Exception as error:  # noqa: BLE001 - whatever a broken subject raises is a finding
            violations.append((name, f"raised {type(error).__name__}: {error}"))
    if violations:
        raise ConformanceError(subject, violations, len(chosen))


def refuses(
    call: Callable[[], object], error: type[Exception], what: str, words: Iterable[str] = ()
) -> list[str]:
    """What is wrong with how `call` is refused: nothing if it raises `error` with these words in its message.

    Args:
        call: What must not work.
        error: The type of error that it must raise.
        what: The call in words.
        words: What the message must hold.

    Example:
        >>> refuses(lambda: int("x"), ValueError, "a text that is no number")
        []
    """
    try:
        call()
    except error as caught:
        missing = [word for word in words if word not in str(caught)]
        return [f"the message about {what} does not say {missing}: {caught}"] if missing else []
    except Exception as caught:  # noqa: BLE001 - the wrong error is a finding
        return [f"{what} must raise {error.__name__}, not {type(caught).__name__}: {caught}"]
    return [f"{what} must raise {error.__name__}, but is accepted"]
