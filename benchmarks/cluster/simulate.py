"""What a batch costs besides computing: a real scheduler, workers and manifest; images that are not there; a segmenter that costs nothing.

    python -m benchmarks.cluster.simulate 100000 [--as-if 4] [--workers 2] [--plot growth.png] [--json growth.json]

Measured while it runs: memory of the client and of the scheduler (with ``local:N`` both are in this process), of the largest worker, the overhead an
image and the size of the manifest; at the end what resuming and the status cost. The paths stream from a generator, as they do from ``--from-file``.
Images that cost nothing travel in the largest chunks; ``--as-if`` has them claim seconds, and with 4 each is a chunk of its own, the dearest case.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from segment_duo.batch import Request
from segment_duo.batches import cluster
from segment_duo.batches.hashes import HashSet, path_hash
from segment_duo.batches.history import read_history
from segment_duo.batches.manifest import Manifest, Record
from segment_duo.batches.summary import summarize
from segment_duo.types import ImageRef, StoreKind

MIB = 1 << 20


def costless(as_if: float, refs: tuple[ImageRef, ...], _request: Request, _since: float | None) -> cluster.Done:
    """Stands in for :func:`segment_duo.batches.cluster.work`: every image is done at once, with a set that is not written.

    ``as_if``: seconds that each image is said to have taken.
    """
    began = time.monotonic()
    records = [
        (
            Record(
                str(ref), set=f"{ref.folder}/masks/{ref.stem}.pkl", version="0", masks=100, model="nano", hash="0" * 12
            ),
            (),
        )
        for ref in refs
    ]
    return cluster.Done(records, time.monotonic() - began + as_if * len(refs))


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def paths(count: int, seen: HashSet) -> Iterator[tuple[ImageRef, None]]:
    for number in range(count):
        ref = ImageRef(StoreKind.LOCAL, f"/data/project/run-{number // 1000:05}/field_{number % 1000:03}.tif")
        seen.add(path_hash(str(ref)))
        yield ref, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=int)
    parser.add_argument("--as-if", type=float, default=0.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    cluster.work = functools.partial(costless, asked.as_if)
    here = psutil.Process()
    points: list[dict[str, float]] = []
    done = 0
    with tempfile.TemporaryDirectory() as folder, cluster.connected(f"local:{asked.workers}") as client:
        manifest = Manifest(
            Path(folder), "all", {"batch": "b", "command": "auto", "model": "nano", "given": asked.images}
        )
        seen = HashSet()
        began = time.monotonic()

        def report(record: Record, _messages: tuple[str, ...]) -> None:
            nonlocal done
            manifest.note(record)
            done += 1
            if done % max(1, asked.images // 50) == 0:
                known = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
                points.append(
                    {
                        "images": done,
                        "seconds": round(time.monotonic() - began, 2),
                        "rss_mib": round(here.memory_info().rss / MIB, 1),
                        "worker_rss_mib": round(max(client.run(_resident).values()) / MIB, 1),
                        "tasks_in_scheduler": known,
                        "manifest_mib": round(manifest.path.stat().st_size / MIB, 2),
                    }
                )

        windows = cluster.Windows(
            client, Request(), report, stopped=lambda: False, sent=lambda ref: manifest.begin(str(ref), sent=True)
        )
        windows.run(paths(asked.images, seen))
        seconds = time.monotonic() - began
        manifest.close("done")
        size = manifest.path.stat().st_size
        before = time.process_time()
        assert len(read_history(Path(folder), "b").settled) == done == asked.images
        resume = time.process_time() - before
        before = time.process_time()
        assert summarize(Path(folder)).done == done
        status = time.process_time() - before
    found: dict[str, Any] = {
        "images": done,
        "workers": asked.workers,
        "as_if_seconds": asked.as_if,
        "milliseconds_an_image": round(1000 * seconds / done, 3),
        "manifest_bytes_an_image": round(size / done),
        "rss_mib_first_and_last": [points[0]["rss_mib"], points[-1]["rss_mib"]],
        "worker_rss_mib_first_and_last": [points[0]["worker_rss_mib"], points[-1]["worker_rss_mib"]],
        "most_tasks_in_scheduler": max(point["tasks_in_scheduler"] for point in points),
        "resume_cpu_microseconds_an_image": round(1e6 * resume / done, 2),
        "status_cpu_microseconds_an_image": round(1e6 * status / done, 2),
    }
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps({**found, "growth": points}, indent=1) + "\n")
    if asked.plot:
        draw(points, asked.plot)


def draw(points: list[dict[str, float]], file: Path) -> None:
    """Time and memory against the number of images, as a PNG of 900 x 360 pixels."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (900, 360), "white")
    pen = ImageDraw.Draw(picture)
    most = points[-1]["images"]
    for left, key, title in ((60, "seconds", "seconds"), (500, "rss_mib", "client + scheduler, MiB")):
        top = 1.1 * max(point[key] for point in points)
        pen.rectangle((left, 40, left + 360, 310), outline="black")
        pen.text((left, 20), f"{title}  (top: {top:.4g}; right: {most:,} images)", fill="black")
        pen.line(
            [(left + 360 * point["images"] / most, 310 - 270 * point[key] / top) for point in points],
            fill="blue",
            width=2,
        )
        pen.text((left, 315), "0", fill="black")
    picture.save(file)


if __name__ == "__main__":
    main()
