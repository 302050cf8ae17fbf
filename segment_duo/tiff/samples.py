"""The samples of a page of labels, all of them or none.

tifffile alone fills strips without bytes with zeros, which are background, and follows broken LZW codes anywhere.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from segment_duo.tiff.lzw import expand_lzw
from segment_duo.tiff.mended import MendedFile
from segment_duo.tiff.quiet import quiet_tifffile
from segment_duo.tiff.segments import is_incomplete, mend_byte_counts, mend_predictor, too_few_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

_LZW = 5


def samples_of(page: Any, file: MendedFile) -> npt.NDArray[Any]:
    """Samples as stored, in the shape that tifffile gives them.

    Args:
        page: a ``tifffile.TiffPage`` or ``TiffFrame``; it stays as it is.
        file: what its ``tifffile.TiffFile`` was opened with.

    Raises:
        ValueError: pixels are missing. Damaged ones raise whatever their decoder raises.
    """
    page = copy.copy(page.aspage())
    mend_byte_counts(page, file.size)
    mend_predictor(page)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if max(ends, default=0) > file.size or is_incomplete(page) or too_few_bytes(page):
        raise ValueError("some of its pixels are missing")
    with quiet_tifffile():
        try:
            if page.compression == _LZW:
                expand_lzw(page, file, "the label image")
            stored: npt.NDArray[Any] = page.asarray()
            return stored
        finally:
            file.forget()
