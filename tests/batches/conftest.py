"""Fixtures of these tests."""

from .toy import toy

__all__ = ["toy"]
