from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from avex.weights import KeyMap, Rule

WORDS = st.from_regex(r"[a-z_]{2,8}", fullmatch=True).filter(lambda word: word != "rest")
NUMBERS = st.integers(0, 10_000).map(str)
RESTS = st.lists(st.one_of(WORDS, NUMBERS), min_size=1, max_size=4).map(".".join)


@st.composite
def tables(draw: st.DrawFn) -> tuple[KeyMap, list[str]]:
    """A table whose rules differ in their first word on either side, and keys that fit it."""
    words = draw(st.lists(WORDS, min_size=2, max_size=12, unique=True))
    half = len(words) // 2
    rules, keys = [], []
    for old, new in zip(words[:half], words[half:], strict=False):
        fields = draw(st.permutations(["{i}", "{name}", "{kind:weight|bias}"]))[: draw(st.integers(0, 3))]
        tail = ["{rest}"] if draw(st.booleans()) else []
        plain = [field.partition(":")[0].strip("{}") for field in fields]
        shuffled = draw(st.permutations([f"{{{name}}}" for name in plain]))
        rules.append(Rule(".".join([old, *fields, *tail]), ".".join([new, *shuffled, *tail])))
        for _ in range(draw(st.integers(0, 4))):
            values = {
                "{i}": draw(NUMBERS),
                "{name}": draw(st.one_of(WORDS, NUMBERS)),
                "{kind:weight|bias}": draw(st.sampled_from(["weight", "bias"])),
                "{rest}": draw(RESTS),
            }
            keys.append(".".join([old, *(values[field] for field in [*fields, *tail])]))
    return KeyMap(rules), sorted(set(keys))


@given(tables())
def test_inverting_leads_back(drawn: tuple[KeyMap, list[str]]) -> None:
    table, keys = drawn
    renamed = table.apply(keys)
    assert list(renamed) == keys
    assert len(set(renamed.values())) == len(keys)
    back = table.invert().apply([new for new in renamed.values() if new is not None])
    assert {new: old for old, new in renamed.items()} == back
    assert [(r.pattern, r.replacement) for r in table.invert().invert()] == [
        (r.pattern, r.replacement) for r in table
    ]


@given(tables(), st.randoms())
def test_the_order_of_the_keys_does_not_matter(drawn: tuple[KeyMap, list[str]], random: object) -> None:
    table, keys = drawn
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert table.apply(shuffled) == table.apply(keys)


@given(RESTS, RESTS)
def test_the_first_rule_wins(key: str, other: str) -> None:
    table = KeyMap([Rule(key, "first"), Rule("{rest}", "second.{rest}")])
    assert table.apply([key]) == {key: "first"}
    if other != key:
        assert table.apply([other]) == {other: f"second.{other}"}


@given(st.text(min_size=1).filter(lambda text: "{" not in text and "}" not in text))
def test_literals_stand_for_themselves_only(text: str) -> None:
    rule = Rule(text, "new")
    assert rule.apply(text) == "new"
    assert not rule.matches(text + "x")
    assert rule.invert().apply("new") == text
