"""The main screen, put together from parts.

    desk.py     what the parts share: panes, document, session, messages
    viewing.py  zoom, pan, cross-hair, loupe      editing.py  points, masks, automatic masks
    folders.py  the explorer                      files.py    opening, versions, saving
    labelling.py  labels and classes
    frames.py   from frame to frame, sequence sets          tracking.py  following objects through the frames
    drafts.py   unsaved work                      engine_line.py  the model and the engine's state
    screen.py   owns the parts; joins them with the panes and with each other

A part knows the desk, and of the other parts only what :class:`Workspace` hands it. Its methods named ``action_*`` are the screen's actions.
"""
