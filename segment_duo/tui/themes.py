"""Two calm themes, dark and light. Warnings and errors differ in brightness as well as in hue, and always carry a word or a sign."""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="segduo-dark",
    primary="#56B4E9",
    secondary="#8AA4B8",
    accent="#E6B450",
    warning="#E6B450",
    error="#F08A5D",
    success="#2FC79A",
    foreground="#D5DAE0",
    background="#14171B",
    surface="#191D22",
    panel="#22272E",
    dark=True,
    variables={"border": "#2E353E", "footer-key-foreground": "#E6B450", "input-selection-background": "#56B4E9 35%"},
)
LIGHT = Theme(
    name="segduo-light",
    primary="#006AA8",
    secondary="#4A6274",
    accent="#8F5A00",
    warning="#8F5A00",
    error="#B23A00",
    success="#00795A",
    foreground="#20262C",
    background="#F7F6F3",
    surface="#F0EEEA",
    panel="#E4E1DB",
    dark=False,
    variables={"border": "#CBC6BD", "footer-key-foreground": "#8F5A00", "input-selection-background": "#006AA8 25%"},
)
