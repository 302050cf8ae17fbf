"""Text, sizes and moments from outside: whatever they are, they are shown, and nothing raises."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_duo.text import UNKNOWN_MOMENT, byte_size, is_utf8, moment, safe, timestamp

ODD_MOMENTS = [-1e300, 8.64e20, 1e14, 253402300800.0, -1e12, float("inf"), float("-inf"), float("nan")]
"""Seen: -1e300 and 8.64e20 from a server, the year 3170843 on a disk."""


@pytest.mark.parametrize("seconds", ODD_MOMENTS)
def test_moments_beyond_the_calendar(seconds: float) -> None:
    assert moment(seconds) == UNKNOWN_MOMENT
    assert timestamp(seconds) is None


@given(st.floats())
def test_moments_and_sizes_never_raise(number: float) -> None:
    assert moment(number)
    assert timestamp(number) is None or "T" in str(timestamp(number))
    assert len(byte_size(number)) < 20


def test_moments_and_sizes_of_every_day() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00+00:00"
    assert len(moment(1e9)) == 16
    assert [byte_size(n) for n in (0, 1023, 1024, 1.5 * 2**30, 3 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 GiB",
        "3.0 TiB",
    ]
    assert byte_size(10**400) == byte_size(float("nan")) == "?"


def test_bytes_of_a_name_that_is_not_utf8_are_shown_as_bytes() -> None:
    name = os.fsdecode(b"K\xf6rnung \x1b.png")
    assert safe(name) == "K\\xf6rnung \\x1b.png"
    assert not is_utf8(name)
    assert is_utf8("Körnung 样品.png")
    assert safe("\ud800") == "\\ud800"
