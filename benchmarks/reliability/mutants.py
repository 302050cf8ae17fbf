"""Images, sets and files to import, with bytes changed, read in a process whose memory is capped: each is read or refused, soon.

python -m benchmarks.reliability.mutants FIRST LAST     reads these mutants; prints a line before each, and one for what is wrong
"""

from __future__ import annotations

import io
import pickle
import random
import resource
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from types import FrameType

import numpy as np
from PIL import Image

from benchmarks.reliability.ground import Row
from segment_duo.errors import SegduoError
from segment_duo.images import read_image
from segment_duo.masks.formats import native
from segment_duo.masks.formats.export import render
from segment_duo.masks.formats.importers import import_report
from segment_duo.masks.rle import bounding_box, encode
from segment_duo.types import ImageIdentity, Mask, MaskSet, Provenance

CAP_BYTES = 3 * 2**30
"""Address space, most of which the libraries themselves take."""
SECONDS = 20
SIZE = 64
EXPORTS = ("coco", "coco-rle", "labels-tiff", "labels-png", "npz", "imagej", "geojson", "labelme", "yolo")

Read = Callable[[bytes], object]


def seeds() -> list[tuple[str, bytes, Read]]:
    """What is mutated: its name, its bytes, and how it is read."""
    found: list[tuple[str, bytes, Read]] = []
    for name, data in _pictures():
        found.append((name, data, lambda data, name=name: read_image(data, name=name, max_pixels=10**7)))  # type: ignore[misc]
    mask_set = _set()
    for name, data in (
        ("set.pkl", native.dumps(mask_set)),
        ("older.pkl", native.dumps(mask_set, legacy=True)),
        *_second_generation(),
    ):
        found.append((name, data, lambda data, name=name: native.loads(data, name=name, max_pixels=10**7)))  # type: ignore[misc]
        found.append((f"peek {name}", data, lambda data, name=name: native.peek(data, name=name)))  # type: ignore[misc]
    for fmt in EXPORTS:
        data = render([(mask_set, None)], fmt)
        found.append(
            (fmt, data, lambda data, fmt=fmt: import_report(data, None, name=f"a.{fmt}", width=SIZE, height=SIZE))
        )  # type: ignore[misc]
    return found


def mutant(data: bytes, dice: random.Random) -> bytes:
    """``data`` with one to four changes: bits, lengths, cuts, repeats, junk."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) or 1)
        kind = dice.randrange(6)
        if kind == 0 and changed:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            changed[at : at + 4] = dice.choice(
                [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
            )
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            changed[at:at] = changed[at : at + dice.randrange(1, 64)]
        elif kind == 4:
            changed[at : at + 8] = dice.randbytes(8)
        else:
            digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
            if digits:
                at = dice.choice(digits)
                changed[at : at + 1] = dice.choice([b"-1", b"99999999999", b"1e308", b"0", b"NaN"])
    return bytes(changed)


def mutants(tries: int) -> Row:
    """A process that ends early (killed by the kernel, a crash in a library) is counted, and another goes on behind the file that did it."""
    row = Row("mutated images, sets and imports, memory capped at 3 GiB")
    read = first = 0
    while first < tries:
        command = [sys.executable, "-m", "benchmarks.reliability.mutants", str(first), str(tries)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = first
        for line in done.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "at":
                last = int(rest.split()[0])
                row.tries += 1
            elif kind == "read":
                read += 1
            else:
                row.count(kind, rest)
        if done.returncode:
            row.count("wrong", f"the reader ended with {done.returncode} at mutant {last}: {done.stderr[-300:]}")
        first = last + 1
    row.note = f"{read} were read, the others refused with a clear error"
    return row


def main(first: int, last: int) -> None:
    sources = seeds()
    resource.setrlimit(resource.RLIMIT_AS, (CAP_BYTES, CAP_BYTES))
    signal.signal(signal.SIGALRM, _late)
    for number in range(first, last):
        name, data, read = sources[number % len(sources)]
        changed = mutant(data, random.Random(number))
        print("at", number, name, flush=True)
        signal.alarm(SECONDS)
        try:
            read(changed)
            print("read", name)
        except SegduoError as error:
            if not error.message:
                print("wrong", number, name, "an error without a message")
        except _Late:
            print("hung", number, name)
        except Exception as error:
            print("wrong", number, name, f"{type(error).__name__}: {error}".replace("\n", " "))
        finally:
            signal.alarm(0)


class _Late(BaseException):
    pass


def _late(_signal: int, _frame: FrameType | None) -> None:
    raise _Late


def _pictures() -> Sequence[tuple[str, bytes]]:
    import tifffile

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (SIZE, SIZE), dtype=np.uint8)
    found = []
    for suffix in ("png", "jpg"):
        out = io.BytesIO()
        Image.fromarray(np.repeat(picture[:, :, None], 3, axis=2)).save(out, {"jpg": "JPEG"}.get(suffix, "PNG"))
        found.append((f"a.{suffix}", out.getvalue()))
    for options in (
        {},
        {"compression": "zlib"},
        {"compression": "lzw"},
        {"tile": (16, 16)},
        {"imagej": True},
        {"ome": True},
    ):
        out = io.BytesIO()
        tifffile.imwrite(out, picture.astype(np.uint16) * 200, **options)
        found.append((f"a{len(found)}.tif", out.getvalue()))
    return found


def _set() -> MaskSet:
    masks = []
    for number in range(4):
        array = np.zeros((SIZE, SIZE), bool)
        array[number * 15 : number * 15 + 10, 5:40] = True
        rle = encode(array)
        masks.append(
            Mask(rle, int(array.sum()), bounding_box(rle), id=number, predicted_iou=0.9, stability_score=0.9, label="a")
        )
    image = ImageIdentity("/a/a.png", "0" * 64, SIZE, SIZE, 0)
    return MaskSet(tuple(masks), Provenance(image=image, created="2026-01-01T00:00:00Z", operation="auto"))


def _second_generation() -> list[tuple[str, bytes]]:
    indices = np.arange(500, dtype=np.int32)
    plain = {"segmentation": indices, "shape": (SIZE, SIZE), "N_pix": SIZE * SIZE, "compressed": False, "area": 500}
    packed = plain | {"segmentation": zlib.compress(indices.tobytes()), "compressed": True}
    return [("web.pkl", pickle.dumps([plain] * 3)), ("packed.pkl", pickle.dumps([packed] * 3))]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
