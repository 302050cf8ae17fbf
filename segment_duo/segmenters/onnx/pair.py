"""The sessions of a pair: arrays in, arrays out. NumPy and onnxruntime; no torch, so that :mod:`~segment_duo.segmenters.onnx.probe` starts quickly.

Memory is bounded: all that onnxruntime takes while it computes comes from one arena of at most :func:`memory_bound` bytes, and a model that
wants more fails instead of the machine. No library of custom operators is ever registered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segment_duo.errors import EngineFailed, ModelError
from segment_duo.segmenters.onnx import Signature

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MOST_MEMORY = 16 * 2**30
MEMORY_SHARE = 0.75
"""Of the machine's memory. SAM's largest encoder takes some 8 GiB for one image."""

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}

_arena = threading.Lock()
_bounded = False


def memory_bound() -> int:
    """Bytes that all pairs together may take while they compute."""
    import psutil

    return min(MOST_MEMORY, int(MEMORY_SHARE * psutil.virtual_memory().total))


def open_session(file: Path, threads: int, name: str) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        threads: CPU threads to compute with, 0 for all.
        name: of the model, for the error.

    Raises:
        ModelError: onnxruntime is not installed, or cannot load the file.
    """
    ort = import_runtime(name)
    _bound_memory(ort)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # an idle engine uses no processor
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common one of their own
        raise ModelError(
            f"{file} cannot be loaded: {said(error)}", "It may be damaged, or newer than onnxruntime."
        ) from None


def import_runtime(name: str) -> Any:
    """The module ``onnxruntime``. Raises ModelError where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            f"the model '{name}' needs onnxruntime, which is not installed here",
            "Install it: pip install 'segment-duo[onnx]'",
        ) from None
    return onnxruntime


def said(error: Exception) -> str:
    """What onnxruntime says, in a line, without its own source files."""
    text = " ".join(str(error).split())
    return text[:300] + ("..." if len(text) > 300 else "")


class Pair:
    """An encoder and a decoder, loaded.

    Args:
        encoder, decoder: the files, checked before (:mod:`segment_duo.segmenters.onnx.contents`).
        signature: the parts of their inputs and outputs.
        threads: CPU threads, 0 for all.
    """

    def __init__(self, encoder: Path, decoder: Path, signature: Signature, threads: int, name: str) -> None:
        self.signature = signature
        self.encoder = open_session(encoder, threads, name)
        self.decoder = open_session(decoder, threads, name)
        self._kinds = {
            port.name: DTYPES.get(port.type, np.float32)
            for session in (self.encoder, self.decoder)
            for port in session.get_inputs()
        }

    def encode(self, image: Array) -> list[Array]:
        """The features of an image, float32 (1, 3, rows, columns) as the encoder wants its values, in the order of the signature."""
        s = self.signature
        if s.channels_last:
            image = image.transpose(0, 2, 3, 1)
        if s.image_rank == 3:
            image = image[0]
        wanted = self._kinds[s.image]
        if np.issubdtype(wanted, np.integer):
            image = image.round()
        found = _run(self.encoder, [out for out, _ in s.features], {s.image: image.astype(wanted)})
        return [np.ascontiguousarray(array, dtype=np.float32) for array in found]

    def decode(
        self, features: Sequence[Array], coords: Array, labels: Array, mask_input: Array | None = None
    ) -> tuple[Array, Array]:
        """Low-res logits float32 (B, K, h, w) and predicted IoU float32 (B, K).

        Args:
            features: of :meth:`encode`.
            coords, labels: (B, N, 2) in pixels of the input, and (B, N); B is 1 unless the pair takes batches.
            mask_input: (B, 1, h, w), or None.
        """
        s = self.signature
        rows, cols = s.low_size
        feed: dict[str, Array] = {port: array for (_, port), array in zip(s.features, features, strict=True)}
        feed |= {s.coords: coords, s.labels: labels}
        if s.mask_input:
            given = np.zeros((len(coords), 1, rows, cols), dtype=np.float32) if mask_input is None else mask_input
            feed |= {s.mask_input: given, s.has_mask_input: np.array([mask_input is not None])}
        if s.original_size:
            feed[s.original_size] = np.array([s.size, s.size])
        feed = {name: array.astype(self._kinds[name]) for name, array in feed.items()}
        masks, iou = _run(self.decoder, [s.masks, s.iou], feed)
        masks = masks.reshape(len(coords), -1, *masks.shape[-2:])
        return masks.astype(np.float32), iou.reshape(len(coords), -1).astype(np.float32)


def _run(session: Any, outputs: list[str], feed: dict[str, Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    options.only_execute_path_to_fetches = (
        True  # masks at image size, which most decoders make as well, are ours to make
    )
    try:
        found: list[Array] = session.run(outputs, feed, options)
    except Exception as error:
        text = said(error)
        if "Available memory of" in text:
            raise EngineFailed(
                f"the ONNX model wants more than {memory_bound() / 2**30:.1f} GiB of memory", "Use a smaller model."
            ) from None
        raise EngineFailed(
            f"the ONNX model failed: {text}", "Does it fit its layout? `segduo models show NAME`"
        ) from None
    return found


def _bound_memory(ort: Any) -> None:
    """Register the arena that every session of this process shares: once."""
    global _bounded  # noqa: PLW0603 - onnxruntime has one environment for a process
    with _arena:
        if not _bounded:
            place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
            ort.create_and_register_allocator(
                place, ort.OrtArenaCfg({"max_mem": memory_bound(), "arena_extend_strategy": 1})
            )
            _bounded = True


def ports(session: Any) -> dict[str, list[tuple[str, str, list[Any]]]]:
    """Name, kind and shape of a session's inputs and outputs."""
    return {side: [(port.name, port.type, list(port.shape)) for port in get()] for side, get in _sides(session)}


def _sides(session: Any) -> list[tuple[str, Callable[[], Any]]]:
    return [("inputs", session.get_inputs), ("outputs", session.get_outputs)]
