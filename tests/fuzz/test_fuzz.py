"""The fuzz targets, shortly: every input that is kept, and some hundred changed ones each (security C3, G2, H1, H2, H3, H4)."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS, Broken

kept = [(target, path.name) for target in TARGETS for path in sorted((CORPUS / target).glob("*"))]


@cache
def seeds_of(target: str) -> tuple[bytes, ...]:
    return tuple(seeds(target))


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_seeds_and_survives_them(target: str) -> None:
    found = seeds_of(target)
    assert found
    for data in found:
        TARGETS[target](data)


@pytest.mark.parametrize(("target", "name"), kept, ids="/".join)
def test_k6_an_input_that_once_failed_is_survived(target: str, name: str) -> None:
    TARGETS[target]((CORPUS / target / name).read_bytes())


def test_every_folder_of_inputs_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


@st.composite
def _changed(draw: st.DrawFn, target: str) -> bytes:
    """A seed with some stretches replaced, taken out, doubled, or exchanged for a stretch of another seed."""
    data = draw(st.sampled_from(seeds_of(target)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        other = draw(st.sampled_from(seeds_of(target)))
        at = draw(st.integers(0, len(other)))
        fresh = draw(st.one_of(st.binary(max_size=40), st.just(data[start:end] * 2), st.just(other[at : at + 40])))
        data = data[:start] + fresh + data[end:]
    return data


def _test_of(target: str) -> Callable[[], None]:
    @settings(max_examples=150, deadline=None)
    @given(st.one_of(st.binary(max_size=200), _changed(target)))
    def run(data: bytes) -> None:
        TARGETS[target](data)

    return run


@pytest.mark.parametrize("target", TARGETS)
def test_k6_changed_inputs_are_survived(target: str) -> None:
    """K6, C3, G2, H1, H2, H3, H4: each by the target of its name."""
    _test_of(target)()


def test_a_target_that_finds_something_says_so() -> None:
    """The harness itself: a parser that lets raw text through is noticed."""
    from tests.fuzz import targets

    with pytest.raises(Broken, match="raw"):
        targets._one_line("a\x1b[0m")
