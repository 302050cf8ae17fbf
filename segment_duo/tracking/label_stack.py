"""Label images of many frames, read one at a time: a TIFF stack, or a folder of label images (DAVIS PNGs, Cell Tracking Challenge)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from segment_duo.errors import InputError, MaskFileError, NotFound
from segment_duo.masks.formats.label_images import labels_array
from segment_duo.masks.formats.sequence import Event
from segment_duo.text import natural_order
from segment_duo.tiff.mended import MendedFile
from segment_duo.tiff.quiet import quiet_tifffile
from segment_duo.tiff.samples import samples_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
CTC_TABLES = ("res_track.txt", "man_track.txt")


@dataclass(frozen=True, slots=True)
class CtcTrack:
    """A line of a Cell Tracking Challenge table: label, first and last image, parent's label or 0."""

    label: int
    first: int
    last: int
    parent: int


class LabelStack:
    """Label images of a sequence: (height, width) integers, 0 is the ground, a value is an object in all frames.

    Attributes:
        kind: ``labels`` or ``ctc``.
        tracks: the table of a Cell Tracking Challenge folder; empty without one.
    """

    def __init__(self, place: Path) -> None:
        """Args:
        place: a TIFF stack, or a folder.

        Raises:
            NotFound: there is nothing of that kind.
            MaskFileError: a damaged stack or table.
        """
        self._open = ExitStack()
        self.name = place.name
        self.tracks: tuple[CtcTrack, ...] = ()
        self._files: list[Path] = []
        if place.is_dir():
            self._read_folder(place)
        else:
            with ExitStack() as opened:  # closes what was opened when the rest of it fails
                self._read_stack(place, opened)
                self._open = opened.pop_all()
        self.kind = "ctc" if self.tracks else "labels"

    def _read_folder(self, place: Path) -> None:
        names = [
            item.name for item in place.iterdir() if item.suffix.lower() in _SUFFIXES and not item.name.startswith(".")
        ]
        if not names:
            raise NotFound(f"{place}: no label images", f"They end in {', '.join(_SUFFIXES)}.")
        self._files = [place / name for name in natural_order(names)]
        self._count = len(self._files)
        table = next((place / name for name in CTC_TABLES if (place / name).is_file()), None)
        if table is not None:
            self.tracks = read_ctc_table(table)

    def _read_stack(self, place: Path, opened: ExitStack) -> None:
        import numpy as np
        import tifffile

        try:
            self._file = MendedFile(opened.enter_context(place.open("rb")))
            with quiet_tifffile():
                tiff = opened.enter_context(tifffile.TiffFile(self._file))
                # Counted first: only that finds a chain of pages that leads back to itself, which the series would follow for ever.
                count = len(tiff.pages)
                series = tiff.series[0]
            shape = tuple(n for n in series.shape if n != 1) or (1, 1)
            self._behind: Any = None
            if (
                series.dataoffset is not None and count == 1 and len(shape) == 3
            ):  # ImageJ's large stacks: one page, the others behind it
                stored = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
                self._behind = np.memmap(place, stored, "r", series.dataoffset, shape)
        except FileNotFoundError:
            raise NotFound(f"no such file or folder: '{place}'") from None
        except OSError as error:
            raise InputError(f"{place}: {error.strerror or error}") from None
        except Exception as error:  # damaged files raise nearly anything from the depths of the decoder
            raise MaskFileError(f"{place}: is not a readable stack of labels ({type(error).__name__})") from None
        if len(shape) not in (2, 3):
            raise MaskFileError(
                f"{place}: has the shape {series.shape}; a stack of labels has frames, rows and columns"
            )
        self._count = shape[0] if len(shape) == 3 else 1
        self._series = series

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[npt.NDArray[np.integer[Any]]]:
        return (self.frame(number) for number in range(len(self)))

    def frame(self, number: int, size: tuple[int, int] | None = None) -> npt.NDArray[np.integer[Any]]:
        """The label image of one frame.

        Args:
            size: (height, width) it must have.

        Raises:
            MaskFileError: another size, several channels, values that are no labels.
        """
        import numpy as np

        if self._files:
            file = self._files[number]
            try:
                content = file.read_bytes()
            except OSError as error:
                raise InputError(f"{file}: {error.strerror or error}") from None
            wanted = size or _size_of(content, file.name)
            return labels_array(content, *wanted, name=file.name)
        try:
            array = (
                samples_of(self._series.pages[number], self._file)
                if self._behind is None
                else np.asarray(self._behind[number], self._behind.dtype.newbyteorder("="))
            )
        except Exception as error:
            raise MaskFileError(f"{self.name}: frame {number} cannot be read ({type(error).__name__})") from None
        array = (
            array.reshape(array.shape[-2:])
            if array.ndim > 2 and array.size == array.shape[-1] * array.shape[-2]
            else array
        )
        if array.ndim != 2 or array.dtype.kind not in "iub" or (size is not None and array.shape != size):
            expected = f", the frames are {size[1]} x {size[0]}" if size else ""
            raise MaskFileError(f"{self.name}: frame {number} has the shape {array.shape} of {array.dtype}{expected}")
        if array.dtype.kind == "i" and array.size and array.min() < 0:
            raise MaskFileError(f"{self.name}: frame {number} holds negative values")
        return array

    def events(self) -> list[Event]:
        """Splits, as the table of a Cell Tracking Challenge folder tells them."""
        children: dict[tuple[int, int], list[int]] = {}
        for track in self.tracks:
            if track.parent:
                children.setdefault((track.first, track.parent), []).append(track.label)
        return [
            Event(first, "split", (parent,), tuple(labels))
            for (first, parent), labels in sorted(children.items())
            if len(labels) > 1
        ]


def _size_of(content: bytes, name: str) -> tuple[int, int]:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.height, image.width
    except Exception as error:
        raise MaskFileError(f"{name}: is not a readable label image ({type(error).__name__})") from None


def read_ctc_table(file: Path) -> tuple[CtcTrack, ...]:
    """The lines of ``res_track.txt`` or ``man_track.txt``.

    Raises:
        MaskFileError: a line is not four whole numbers.
    """
    found = []
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MaskFileError(f"{file.name}: is not a readable table of tracks ({type(error).__name__})") from None
    for position, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, first, last, parent = (int(word) for word in line.split())
        except ValueError:
            raise MaskFileError(f"{file.name}, line {position}: not label, first, last and parent") from None
        found.append(CtcTrack(label, first, last, parent))
    return tuple(found)
