"""Pictures in a terminal, without a UI: what `segduo show` prints and what the terminal UI puts on its canvas.

    viewport.py  cells <-> image pixels, the only place     compose.py  image and overlays -> screen pixels
    graphics.py  screen pixels -> kitty, sixel, half cells  still.py    one picture as text, for stdout
    cells.py     characters of 4, 6 or 8 dots
    marks.py     points, ids, scale bar and cross-hair as text cells on the picture

Nothing here may know Textual, ask an engine or read files.
"""
