"""Which input and output of an encoder and a decoder plays which part. Names and shapes only; nothing is run, no onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segment_duo.errors import ModelError
from segment_duo.segmenters.onnx import Preparation, Signature

EXPECTED = (
    "SAM's exports are: encoder image -> image_embeddings (SAM 2: and high_res_feats_0, _1); decoder these, point_coords, point_labels, mask_input,"
    " has_mask_input -> low_res_masks, iou_predictions."
)

SAM_INPUT = 1024


@dataclass(frozen=True)
class Port:
    """An input or output: ``kind`` as onnxruntime names it (``tensor(float)``); a dimension that is not fixed is a text or None."""

    name: str
    kind: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        kind = self.kind.removeprefix("tensor(").removesuffix(")")
        shape = ", ".join(str(d) if isinstance(d, int) else "?" for d in self.shape)
        return f"{self.name} [{shape}]" + ("" if kind == "float" else f" ({kind})")


@dataclass(frozen=True)
class Ports:
    """Inputs and outputs of a file."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.inputs))} -> {', '.join(map(str, self.outputs))}"


_PARTS = {
    "has_mask_input": re.compile(r"has_?mask", re.I),
    "mask_input": re.compile(r"mask_?input|input_?mask|prev_?mask", re.I),
    "coords": re.compile(r"coord|input_?points|^points?$", re.I),
    "labels": re.compile(r"label", re.I),
    "original_size": re.compile(r"(orig|im|img|image).*size", re.I),
}
"""The decoder's inputs beside the features, in the order they are looked for."""

_NEEDED = {"coords": "the points (point_coords)", "labels": "their labels (point_labels)"}


def match(encoder: Ports, decoder: Ports, layout: str | None, preparation: Preparation | None) -> Signature:
    """The parts of a pair.

    Args:
        layout: ``sam1`` or ``sam2``; None finds out: SAM 2 has high-res features.
        preparation: None finds out: an input of (H, W, 3) or of bytes is the image itself.

    Raises:
        ModelError: the pair does not fit; the message says which part is missing, the hint what was found.
    """
    image, channels_last, side = _image(encoder)
    parts, features = _decoder_inputs(decoder)
    joined = _join(encoder, decoder, features)
    masks = _output(decoder, r"low_?res", r"^(pred_?)?masks?$")
    iou = _output(decoder, r"iou", r"score")
    if masks is None:
        raise _misfit(
            "decoder", "has no output with the low-res logits (low_res_masks, or masks in SAM 2's exports)", decoder
        )
    if iou is None:
        raise _misfit("decoder", "has no output with the predicted IoU (iou_predictions)", decoder)
    prepared = preparation or ("raw" if channels_last or "int" in image.kind else "normalised")
    return Signature(
        layout="sam2" if (layout or ("sam2" if len(joined) > 1 else "sam1")) == "sam2" else "sam1",
        preparation=prepared,
        image=image.name,
        channels_last=channels_last,
        image_rank=len(image.shape),
        fixed=side is not None,
        size=side or SAM_INPUT,
        features=joined,
        masks=masks.name,
        iou=iou.name,
        **parts,
    )


def _image(encoder: Ports) -> tuple[Port, bool, int | None]:
    """The encoder's input, whether its channels come last, and its side in pixels if that is fixed."""
    if len(encoder.inputs) != 1:
        raise _misfit("encoder", f"has {len(encoder.inputs)} inputs instead of one, the image", encoder)
    port = encoder.inputs[0]
    shape = port.shape
    first, last = (len(shape) == 4 and shape[1] in (3, None)), (len(shape) in (3, 4) and shape[-1] == 3)
    if not (first or last or (len(shape) == 4 and isinstance(shape[1], str))):
        raise _misfit("encoder", "takes no image of three channels (1, 3, H, W) or (H, W, 3)", encoder)
    channels_last = last and not (len(shape) == 4 and shape[1] == 3)
    sides = shape[-3:-1] if channels_last else shape[-2:]
    fixed = [side for side in sides if isinstance(side, int) and side > 0]
    if len(fixed) == 2 and fixed[0] != fixed[1]:
        raise _misfit("encoder", f"takes images of {fixed[0]} x {fixed[1]} pixels, not square ones", encoder)
    return port, channels_last, fixed[0] if fixed else None


def _decoder_inputs(decoder: Ports) -> tuple[dict[str, Any], list[Port]]:
    """Names of the decoder's prompt inputs by part, and the ports that are left: the features."""
    left = list(decoder.inputs)
    parts: dict[str, Any] = {}
    for part, pattern in _PARTS.items():
        found = next((port for port in left if pattern.search(port.name)), None)
        if found is not None:
            parts[part] = found.name
            left.remove(found)
    for part, words in _NEEDED.items():
        if part not in parts:
            raise _misfit("decoder", f"has no input for {words}", decoder)
    for part, rank in (("coords", 3), ("labels", 2)):
        port = next(port for port in decoder.inputs if port.name == parts[part])
        if len(port.shape) != rank:
            raise _misfit("decoder", f"{parts[part]} has {len(port.shape)} dimensions instead of {rank}", decoder)
    if ("mask_input" in parts) != ("has_mask_input" in parts):
        raise _misfit("decoder", "has one of mask_input and has_mask_input, and needs both or none", decoder)
    strange = [port for port in left if len(port.shape) != 4]
    if strange:
        raise _misfit("decoder", f"has an input of unknown meaning: {strange[0]}", decoder)
    return parts, left


def _join(encoder: Ports, decoder: Ports, features: Sequence[Port]) -> tuple[tuple[str, str], ...]:
    """Which output of the encoder feeds which input of the decoder, the image embedding first."""
    if not features:
        raise _misfit("decoder", "has no input for the image embedding", decoder)
    outputs = {port.name: port for port in encoder.outputs}
    pairs: dict[str, str] = {port.name: port.name for port in features if port.name in outputs}
    for port in features:
        if port.name in pairs:
            continue
        free = [out for out in encoder.outputs if out.name not in pairs.values() and _may_be(out, port)]
        alike = [out for out in free if _stem(out.name) == _stem(port.name)] or free
        if len(alike) != 1:
            raise ModelError(
                f"encoder and decoder do not fit: the decoder's {port} can come from {len(alike)} of the encoder's outputs",
                f"The encoder gives {'; '.join(map(str, encoder.outputs))}. {EXPECTED}",
            )
        pairs[port.name] = alike[0].name
    for port in features:
        if not _may_be(outputs[pairs[port.name]], port):
            raise ModelError(
                f"encoder and decoder do not fit: the encoder gives {outputs[pairs[port.name]]}, the decoder wants {port}",
                "They must be exported from one model.",
            )
    order = sorted(features, key=lambda port: ("embed" not in port.name.lower(), port.name))
    return tuple((pairs[port.name], port.name) for port in order)


def _may_be(out: Port, port: Port) -> bool:
    """Whether shapes agree where both are fixed."""
    return (
        out.kind == port.kind
        and len(out.shape) == len(port.shape)
        and all(a == b for a, b in zip(out.shape, port.shape, strict=True) if isinstance(a, int) and isinstance(b, int))
    )


def _stem(name: str) -> str:
    """``image_embeddings``, ``image_embed`` and ``image_embedding`` are one."""
    return re.sub(r"embed(ding)?s?", "embed", name.lower()).replace("features", "feats")


def _output(decoder: Ports, *patterns: str) -> Port | None:
    for pattern in patterns:
        for port in decoder.outputs:
            if re.search(pattern, port.name, re.I):
                return port
    return None


def _misfit(which: str, what: str, ports: Ports) -> ModelError:
    return ModelError(f"the {which} {what}", f"It has {ports}. {EXPECTED}")


def as_ports(listed: Mapping[str, Sequence[tuple[str, str, Sequence[object]]]]) -> Ports:
    """Ports of what :func:`segment_duo.segmenters.onnx.pair.ports` lists."""
    made = {
        side: tuple(Port(name, kind, tuple(map(_dimension, shape))) for name, kind, shape in listed[side])
        for side in ("inputs", "outputs")
    }
    return Ports(made["inputs"], made["outputs"])


def _dimension(given: object) -> int | str | None:
    return given if isinstance(given, int | str) else None
