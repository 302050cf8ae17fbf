"""Bytes of TIFF files before they are samples: what tifffile would misread, for images and label images alike.

    MendedFile ─▶ tifffile ─▶ page ─▶ mend_byte_counts, mend_predictor, expand_lzw ─▶ page.asarray()

This package must not know what the samples are for.
"""
