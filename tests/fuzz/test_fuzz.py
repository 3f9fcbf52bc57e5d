"""A few seconds of `make fuzz`, with one seed; and that a failure is seen, made small, and can be had again."""

import pytest
from hypothesis import strategies as st

from tests.fuzz.__main__ import all_targets, attempt, fuzz
from tests.fuzz.reader import Reader, outcome
from tests.fuzz.targets import Broken, Target, blob, example_of


@pytest.mark.slow
def test_a_few_of_each() -> None:
    with all_targets() as targets:
        assert len(targets) == 9
        failures = fuzz(targets, 60.0, 20_261_130, rounds=1, examples=20)
        assert not failures
        assert all(target.tried.total() for target in targets)
        assert not any(target.outside for target in targets)


def test_a_failure_is_made_small_and_can_be_had_again() -> None:
    def check(data: bytes) -> None:
        if b"\x07" in data:
            raise Broken("a seven")

    failure = attempt(Target("sevens", st.binary(max_size=50), check), 0, 5000)
    assert failure is not None
    assert "a seven" in failure.why
    assert example_of(failure.word) == ("", b"\x07")
    assert example_of(blob(("PNG", b"\0\1"))) == ("PNG", b"\0\1")


def test_a_process_that_ends_is_told_and_another_one_reads_on() -> None:
    reader = Reader()
    try:
        assert reader.read(b"no picture").how == "refused"
        assert reader._process is not None
        reader._process.kill()
        assert reader.read(b"no picture").how == "ended"
        assert reader.read(b"no picture").how == "refused"
    finally:
        reader.close()


def test_what_is_no_error_of_ours_is_wrong() -> None:
    assert outcome(b"no picture") == ("refused", "ImageError")
    assert outcome(7)[0] == "wrong"  # type: ignore[arg-type]
