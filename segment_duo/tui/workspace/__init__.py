"""The main screen, in four parts that build on each other.

base.py     panes, shared state, messages      viewing.py  zoom, pan, cross-hair, loupe
editing.py  points, masks, automatic masks     files.py    folders, opening, versions, saving, unsaved work
screen.py   the screen itself
"""
