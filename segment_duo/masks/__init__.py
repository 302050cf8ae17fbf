"""Mask sets: their file format, run-length encoding, measures, overlap, filters, comparison, import and export.

Import the module you need; this package imports nothing, so that listing commands stay light.
"""
