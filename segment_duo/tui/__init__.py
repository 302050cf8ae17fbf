"""The terminal UI: explorer, picture, mask list, over the use cases of :mod:`segment_duo.session`.

    app.py        one factory builds the app for the command line and for the tests
    workspace/    the main screen: joins panes, document and session
    state.py      the document: masks, points, undo          journal.py   unsaved work on disk
    timeline.py   the frames: their documents, what follows  film.py      a stack or film, its sets, runs over it
    errands.py    slow work in threads                       keys.py      every command and its keys
    ports.py      what is needed of the session              themes.py    colours
    canvas/ explorer/ loupe/ masks/ status/                  one folder a pane, one widget a file
    screens/                                                 dialogs

Pictures are made by :mod:`segment_duo.terminal`.
Nothing here may compute with models or speak to servers: everything slow is a call of the session, in a thread.
"""
