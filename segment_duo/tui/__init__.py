"""The terminal UI: explorer, picture, mask list, over the use cases of :mod:`segment_duo.session`.

    app.py        one factory builds the app for the command line and for the tests
    workspace.py  the main screen: joins panes, document and session
    state.py      the document: masks, points, undo          viewport.py  cells <-> image pixels, the only place
    picture.py    image and overlays -> screen pixels        graphics.py  screen pixels -> kitty, sixel, half cells
    jobs.py       slow work in threads                       journal.py   unsaved work on disk
    keys.py       every command and its keys                 ports.py     what is needed of the session
    canvas/ explorer/ loupe/ masks/ status/                  one folder a pane, one widget a file
    screens/                                                 dialogs

Nothing here may compute with models or speak to servers: everything slow is a call of the session, in a thread.
"""
