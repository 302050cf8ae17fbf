"""The error tree, its documentation, and text that comes from elsewhere."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_duo.errors import EngineFailed, SegduoError, all_error_classes, error_from_slug
from segment_duo.text import safe

from .conftest import REPOSITORY


def test_every_class_has_its_own_slug() -> None:
    slugs = [cls.slug for cls in all_error_classes()]
    assert len(slugs) == len(set(slugs))


def test_documented_exit_codes_are_those_of_the_classes() -> None:
    text = (REPOSITORY / "docs" / "exit-codes.md").read_text()
    documented = {
        (slug, int(code))
        for code, names in re.findall(r"^\| (\d+) \| ((?:`[a-z-]+`(?:, )?)+) \|", text, re.MULTILINE)
        for slug in re.findall(r"`([a-z-]+)`", names)
    }
    assert documented == {(cls.slug, cls.exit_code) for cls in all_error_classes()}


@pytest.mark.parametrize("cls", all_error_classes())
def test_an_error_survives_the_wire(cls: type[SegduoError]) -> None:
    rebuilt = error_from_slug(cls.slug, "what", "next")
    assert type(rebuilt) is cls
    assert (rebuilt.message, rebuilt.hint) == ("what", "next")


def test_a_slug_of_a_newer_engine_is_an_engine_failure() -> None:
    assert type(error_from_slug("from-the-future", "what")) is EngineFailed


@given(st.text())
def test_safe_text_holds_no_control_characters(text: str) -> None:
    shown = safe(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u2028\u2029\ud800-\udfff]", shown)


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_harmless_text_is_left_alone(text: str) -> None:
    assert safe(text) == text


def test_long_text_is_shortened() -> None:
    assert len(safe("x" * 5000)) == 2000
