"""Where images and mask sets live. Stores know bytes and names, never models or pixels.

    locate    what a user types -> ImageRef, and which store answers for it
    base      the Store protocol, names, patterns     versions  how mask sets are named, ordered and allocated
    local     folders of this machine                 spool     sets that wait for a store to come back
    drops     the Drops file server (HTTP)            cache     files fetched from Drops, kept on disk

Nothing here overwrites or deletes what a user stored. This package imports only the standard library; HTTP is loaded on first use of Drops.
"""
