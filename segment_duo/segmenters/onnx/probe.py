"""Whether a pair works: match its inputs and outputs, and run it once, in a process of its own with a time limit and bounded memory.

python -m segment_duo.segmenters.onnx.probe ENCODER DECODER LAYOUT PREPARATION   -> one line of JSON: {"signature": ...} or {"message", "hint"}
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from segment_duo.errors import ModelError, SegduoError
from segment_duo.segmenters.onnx import Preparation, Signature

SECONDS = 300.0
"""For loading and one image; SAM's largest encoder takes half a minute on two cores."""

ADDRESS_SPACE = 2 * 2**30
"""Bytes beside the models' memory: Python, libraries, threads."""


def probe(encoder: Path, decoder: Path, layout: str | None, preparation: Preparation | None) -> Signature:
    """The signature of a pair that was run once.

    Raises:
        ModelError: it does not fit, or cannot be run.
    """
    arguments = [str(encoder), str(decoder), layout or "", preparation or ""]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "segment_duo.segmenters.onnx.probe", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"one image took the pair longer than {SECONDS:g} s", "Use a smaller model.") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise ModelError(
            f"running the pair ended its process with exit code {done.returncode}",
            "The files are damaged, or want more memory than this machine has.",
        ) from None
    if "signature" not in answer:
        raise ModelError(str(answer.get("message")), str(answer.get("hint", "")))
    return Signature.model_validate(answer["signature"])


def try_out(encoder: Path, decoder: Path, layout: str | None, preparation: Preparation | None) -> Signature:
    """Match and run in this process."""
    from segment_duo.segmenters.onnx.pair import Pair, open_session, ports
    from segment_duo.segmenters.onnx.signature import as_ports, match

    first, second = (as_ports(ports(open_session(file, 0, file.name))) for file in (encoder, decoder))
    signature = match(first, second, layout, preparation)
    return run_once(Pair(encoder, decoder, signature, 0, encoder.name), signature)


def run_once(pair: Any, signature: Signature) -> Signature:
    """The signature with what a run on an even picture shows: size of the logits, number of masks, whether prompts go in batches.

    Raises:
        ModelError: the answers are not low-res logits with a predicted IoU for each mask.
    """
    import numpy as np

    size = signature.size
    features = pair.encode(np.zeros((1, 3, size, size), dtype=np.float32))
    coords = np.array([[[size / 2, size / 3], [0, 0]]], dtype=np.float32)
    labels = np.array([[1, -1]])
    low = (size // 4, size // 4)
    pair.signature = signature.model_copy(update={"low_size": low})
    masks, iou = pair.decode(features, coords, labels)
    if masks.shape[-2:] != low:
        shown = " x ".join(map(str, masks.shape[-2:]))
        raise ModelError(
            f"the decoder's output {signature.masks} is {shown}, not the low-res logits ({low[0]} x {low[1]})",
            "Export it with low_res_masks among its outputs: masks at image size cannot be refined, nor measured cheaply.",
        )
    if iou.shape != masks.shape[:2] or not 1 <= iou.shape[1] <= 16:
        raise ModelError(f"the decoder gives {masks.shape[1]} masks and {iou.shape[1]} predicted IoUs for a prompt")
    batched = False
    with contextlib.suppress(SegduoError, ValueError):
        twice, scores = pair.decode(features, np.repeat(coords, 2, 0), np.repeat(labels, 2, 0))
        batched = twice.shape == (2, *masks.shape[1:]) and bool(np.allclose(scores[1], iou[0], atol=1e-3))
    return signature.model_copy(update={"low_size": low, "candidates": int(iou.shape[1]), "batched": batched})


def _main(encoder: str, decoder: str, layout: str, preparation: str) -> None:
    answer = os.dup(1)
    os.dup2(2, 1)
    _limit_memory()
    said: dict[str, Any]
    try:
        wanted = cast("Preparation | None", preparation or None)
        said = {"signature": try_out(Path(encoder), Path(decoder), layout or None, wanted).model_dump(mode="json")}
    except SegduoError as error:
        said = {"message": error.message, "hint": error.hint}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(said, stream)


def _limit_memory() -> None:
    """Of the whole process, where the system can (Linux); the arena's own bound holds everywhere."""
    import resource

    from segment_duo.segmenters.onnx.pair import memory_bound

    if sys.platform == "linux":
        bound = memory_bound() + ADDRESS_SPACE
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


if __name__ == "__main__":
    _main(*sys.argv[1:5])
