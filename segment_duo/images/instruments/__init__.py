"""What microscopes write about their images: pixel size, banner height, beam, detector.

    tags, sidecars -> zeiss | fei | tescan | jeol | hitachi | imagej, ome -> Finding

The first reader that knows a pixel size gives it; makers' own tags come before general ones. ``XResolution`` alone is never used: on
real micrographs it holds print resolutions (96, 146, 314 dpi). Readers take untrusted text: they never raise, and what cannot be
parsed is as if it were absent. The numbers' origins are in ``docs/micrographs.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from segment_duo.images.instruments.finding import Finding, Source
from segment_duo.types import Instrument


def read_instrument(source: Source) -> Finding:
    """Merge what all readers find in ``source``. Nothing found gives an empty :class:`Finding`."""
    from segment_duo.images.instruments import fei, general, hitachi, jeol, tescan, zeiss

    readers: tuple[Callable[[Source], Finding | None], ...] = (
        zeiss.read, fei.read, tescan.read, jeol.read, hitachi.read, general.read,
    )  # fmt: skip
    found: list[Finding] = []
    for reader in readers:
        try:
            finding = reader(source)
        except (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError) as error:
            maker = reader.__module__.rsplit(".", 1)[-1]
            finding = Finding(warnings=(f"the {maker} metadata could not be read ({type(error).__name__}: {error})",))
        if finding is not None:
            found.append(finding)
    named = next((f.instrument for f in found if f.instrument.maker), Instrument(source.make, source.model))
    return Finding(
        pixel_size=next((f.pixel_size for f in found if f.pixel_size is not None), None),
        banner_rows=next((f.banner_rows for f in found if f.banner_rows is not None), None),
        instrument=named,
        warnings=tuple(w for f in found for w in f.warnings),
    )


def sidecar_names(name: str) -> tuple[str, ...]:
    """Names of the files that JEOL, Hitachi and Tescan put next to the image ``name``; none for other extensions.

    Case differs between instruments and file systems, so the usual variants are all given, likeliest first.
    """
    stem, dot, suffix = name.rpartition(".")
    kind = suffix.lower()
    if not dot or not stem or kind not in {"tif", "tiff", "jpg", "jpeg", "bmp", "png"}:
        return ()
    names = [f"{stem}.txt", f"{stem}.TXT", f"{stem}.Txt"]
    if kind in {"tif", "tiff", "png"}:
        names += [f"{stem}-{suffix}.hdr", f"{stem}-{kind}.hdr", f"{stem}.hdr", f"{stem}-{suffix}.HDR", f"{stem}.HDR"]
    return tuple(dict.fromkeys(names))


def usable_sidecars(name: str, sidecars: Mapping[str, bytes] | None) -> dict[str, bytes]:
    """Those of ``sidecars`` (file name to content) that belong to the image ``name``, in the order of :func:`sidecar_names`."""
    if not sidecars:
        return {}
    by_lower = {key.rsplit("/", 1)[-1].lower(): value for key, value in sidecars.items()}
    wanted = dict.fromkeys(candidate.lower() for candidate in sidecar_names(name.rsplit("/", 1)[-1]))
    return {key: by_lower[key] for key in wanted if key in by_lower}
