"""For notebooks and scripts: arrays in, arrays out, with SAM's own parameter names.

    import segment_duo as sd

    masks = sd.auto("particles.tif")            # or an array: H x W, H x W x 3, any depth
    masks = sd.point(array, [[120, 88]])
    masks.masks[0], masks.labels(), masks.measure(), masks.save()

A front end beside the command line: it opens a :class:`~segment_duo.session.Session`, which finds the running engine, and computes in
this process where there is none. Nothing heavy is imported before the first call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, overload

from segment_duo.errors import InputError, UsageError
from segment_duo.paths import absolute
from segment_duo.types import Box, Mask, MaskSet, PixelSize, Point, Prompt, StoreKind

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

    from segment_duo.closer import PromptScale
    from segment_duo.session import OpenImage, Session

    ImageLike: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any]"


def auto(
    image: ImageLike,
    *,
    model: str | None = None,
    device: str | None = None,
    preset: str = "default",
    pixel_size_nm: float | tuple[float, float] | None = None,
    banner: str | int = "auto",
    page: int = 0,
    frame: int | None = None,
    **parameters: Any,
) -> Masks:
    """All masks of an image.

    Args:
        image: a path, as the command line takes it (also ``/drops/...``), or an array (H, W), (H, W, 3) or (H, W, 4) of any depth.
        model: a name of ``segduo models ls``; None chooses as the command line does.
        device: ``auto``, ``cuda``, ``mps`` or ``cpu``.
        preset: where the parameters start: ``default``, ``web``, ``fine`` or ``coarse``.
        pixel_size_nm: nanometres a pixel, or (x, y); replaces what the file says.
        banner: ``auto``, ``off`` or the rows to cut from the bottom; nothing is cut from arrays unless it is a number.
        page: of a multi-page TIFF, from 0.
        frame: of a stack or film, from 0: the time or depth of a hyperstack.
        **parameters: those of ``SAM2AutomaticMaskGenerator`` (``points_per_side``, ``pred_iou_thresh``, ...) and this program's own: fields
            of :class:`~segment_duo.parameters.AutoParameters`.

    Raises:
        SegduoError: as on the command line; ``message`` and ``hint`` say what to do.
        TypeError: an unknown parameter.
    """
    session = _session(model, device)
    opened = _open(session, image, pixel_size_nm, banner, page, frame)
    start = session.auto_defaults(preset)
    region = parameters.get("region")
    if region is not None and not isinstance(region, Box):
        parameters["region"] = Box(*(float(value) for value in region))
    chosen = dataclasses.replace(start, **parameters)
    result = session.auto(opened, chosen, preset=preset)
    return Masks(result.masks, opened, session, operation="auto", notices=result.notes)


def point(
    image: ImageLike,
    point_coords: Sequence[Sequence[float]] | npt.NDArray[Any] | None = None,
    point_labels: Sequence[int] | npt.NDArray[Any] | None = None,
    *,
    box: Sequence[float] | npt.NDArray[Any] | None = None,
    multimask_output: bool | None = None,
    scale: PromptScale | None = None,
    in_turn: bool | None = None,
    model: str | None = None,
    device: str | None = None,
    pixel_size_nm: float | tuple[float, float] | None = None,
    banner: str | int = "auto",
    page: int = 0,
    frame: int | None = None,
) -> Masks:
    """The mask of one object, from points and a box, or its three candidates.

    Args:
        image: see :func:`auto`.
        point_coords: (N, 2), x and y in pixels; the centre of the first pixel is 0, 0.
        point_labels: (N,), 1 include, 0 exclude; all include by default.
        box: x0, y0, x1, y1.
        multimask_output: True gives three candidates, best first; False one; None the best of three for a single point, else one.
        scale: show the model the ``whole`` image only, or also the part around the prompt, ``closer``; None: closer for models with a small
            input, as nano.
        in_turn: each point refines the mask of those before it, else all are given at once; None: in turn for such models.

    Raises:
        PromptError: a prompt is not on the image, or there is none.
    """
    coords = [] if point_coords is None else [(float(x), float(y)) for x, y in point_coords]
    labels = [1] * len(coords) if point_labels is None else [int(label) for label in point_labels]
    if len(labels) != len(coords):
        raise UsageError(f"{len(coords)} points, but {len(labels)} labels")
    if any(label not in (0, 1) for label in labels):
        raise UsageError("labels are 1 (include) and 0 (exclude)")
    points = tuple(Point(x, y, cast("Literal[0, 1]", n)) for (x, y), n in zip(coords, labels, strict=True))
    prompt = Prompt(points=points, box=None if box is None else Box(*(float(value) for value in box)))
    session = _session(model, device)
    opened = _open(session, image, pixel_size_nm, banner, page, frame)
    (found,) = session.predict_at_scale(opened, [prompt], scale, multimask_output=multimask_output, in_turn=in_turn)
    kept = found.candidates if multimask_output else found.candidates[:1]
    masks = tuple(dataclasses.replace(one.mask, id=number) for number, one in enumerate(kept))
    return Masks(masks, opened, session, operation="point")


def open(path: str | os.PathLike[str], version: str | None = None) -> Masks:  # noqa: A001 - sd.open, as PIL.Image.open
    """A saved set.

    Args:
        path: an image with saved sets (``IMAGE@VERSION`` works too), or a mask set file (``.pkl``).
        version: ``0``, ``2``, ``grain_1``; the latest by default.

    Raises:
        NotFound: no such set.
        MaskFileError: the file is damaged or no mask set.
    """
    text = str(path)
    session = _session(None, None)
    if text.endswith(".pkl"):
        from segment_duo.masks.formats.native import loads

        ref = session.reference(text)
        mask_set = loads(session.store(ref.store).read(ref.path), name=text, max_pixels=session.config.max_pixels)
        return Masks(mask_set.masks, None, session, mask_set=mask_set)
    from segment_duo.library.versions import split_version

    if version is None and session.store(session.reference(text).store).stat(session.reference(text).path) is None:
        text, request = split_version(text)
        version = request.name
    loaded, opened = session.load_with_image(session.reference(text), version)
    return Masks(loaded.mask_set.masks, opened, session, parent=loaded.version.name, mask_set=loaded.mask_set)


class Masks(Sequence[Mask]):
    """Masks of one image: SAM records with what can be done with them. Indexing gives :class:`~segment_duo.types.Mask` objects.

    Attributes:
        masks: boolean arrays (H, W) on demand: ``masks.masks[0]``.
        notices: approximations that were used, sentences for whoever uses the masks.
    """

    def __init__(
        self,
        masks: Sequence[Mask],
        image: OpenImage | None,
        session: Session,
        *,
        operation: str = "python",
        parent: str | None = None,
        notices: Sequence[str] = (),
        mask_set: MaskSet | None = None,
    ) -> None:
        self._masks = tuple(masks)
        self._image = image
        self._session = session
        self._operation = operation
        self._parent = parent
        self._set = mask_set
        self.notices = tuple(notices)
        self.masks = Arrays(self._masks)

    @overload
    def __getitem__(self, index: int) -> Mask: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mask]: ...

    def __getitem__(self, index: int | slice) -> Mask | Sequence[Mask]:
        return self._masks[index]

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        of = f" of {self._image.ref.name}" if self._image is not None else ""
        return f"<{len(self)} mask{'' if len(self) == 1 else 's'}{of}>"

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the masks in pixels: those of the uncut image."""
        if self._image is not None:
            return self._image.data.facts.height, self._image.data.facts.width
        if self._masks:
            return self._masks[0].rle.height, self._masks[0].rle.width
        identity = self._set.provenance.image if self._set is not None else None
        return (identity.height, identity.width) if identity is not None else (0, 0)

    @property
    def records(self) -> list[dict[str, Any]]:
        """SAM's records (``output_mode="coco_rle"``): segmentation, area, bbox, predicted_iou, point_coords, stability_score, crop_box."""
        from segment_duo.masks.formats.native import to_record

        return [to_record(mask) for mask in self._masks]

    def keep(self, ids: Sequence[int]) -> Masks:
        """The masks with these ids, as ``measure()`` and ``records`` give them."""
        wanted = {int(one) for one in ids}
        kept = [mask for mask in self._masks if mask.id in wanted]
        return Masks(
            kept, self._image, self._session, operation=self._operation, parent=self._parent, notices=self.notices,
            mask_set=self._set,
        )  # fmt: skip

    def labels(self, overlap: str = "small-on-top") -> npt.NDArray[Any]:
        """A label image (H, W), uint16 (uint32 above 65,535 masks): 0 background, ``i + 1`` for ``self[i]``.

        Args:
            overlap: who owns pixels that masks share: ``small-on-top``, ``score`` or ``area``.
        """
        from segment_duo.masks.overlap import label_image

        height, width = self.shape
        return label_image(self._masks, height, width, rule=overlap)

    def measure(self) -> list[dict[str, Any]]:
        """A row for each mask: area, diameters, shape, position, grey values; in nm as well where the pixel size is known. pandas takes it."""
        from segment_duo.masks.measure import measure

        data = self._image.data if self._image is not None else None
        rows = measure(self._as_set(), data)
        return [{name: value for name, value in dataclasses.asdict(row).items() if value is not None} for row in rows]

    def save(self, to: str | os.PathLike[str] | None = None, *, suffix: str = "") -> str:
        """Save as a new version beside the image's other sets; nothing is ever overwritten. Returns where it is.

        Args:
            to: a new ``.pkl`` file instead; needed for masks of an array, which has no place of its own.
            suffix: of the version's name (``grains`` -> ``image_grains.pkl``).
        """
        if to is not None:
            from segment_duo.masks.formats.native import dumps

            target = str(absolute(to))
            self._session.store(StoreKind.LOCAL).create(target, dumps(self._as_set()))
            return target
        if self._image is None or not self._image.data.facts.bytes:
            raise InputError("these masks belong to no image file", 'Name a new file: .save("grains.pkl").')
        saved = self._session.save(
            self._image,
            self._masks,
            operation=self._operation,
            suffix=suffix,
            parent=self._parent,
            notices=self.notices,
        )
        return saved.path

    def _as_set(self) -> MaskSet:
        from segment_duo.masks.ids import unique_ids
        from segment_duo.provenance import of_set, stamped

        if self._image is None:
            assert self._set is not None
            return dataclasses.replace(self._set, masks=self._masks)
        provenance = of_set(
            self._image.identity,
            self._image.data.facts,
            self._masks,
            operation=self._operation,
            parent=self._parent,
            notices=self.notices,
        )
        return MaskSet(unique_ids(self._masks), stamped(provenance))


class Arrays(Sequence["npt.NDArray[np.bool_]"]):
    """Masks as boolean arrays (H, W), each decoded when it is asked for: all at once may not fit into memory."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        self._masks = tuple(masks)

    @overload
    def __getitem__(self, index: int) -> npt.NDArray[np.bool_]: ...

    @overload
    def __getitem__(self, index: slice) -> Arrays: ...

    def __getitem__(self, index: int | slice) -> npt.NDArray[np.bool_] | Arrays:
        from segment_duo.masks.rle import decode

        return Arrays(self._masks[index]) if isinstance(index, slice) else decode(self._masks[index].rle)

    def __len__(self) -> int:
        return len(self._masks)

    def __iter__(self) -> Iterator[npt.NDArray[np.bool_]]:
        return (self[index] for index in range(len(self)))


@cache
def _session(model: str | None, device: str | None) -> Session:
    """One session for each choice: a model that this process computes with is loaded once."""
    from segment_duo.config import load_config
    from segment_duo.engine.lifecycle import probe
    from segment_duo.engine.settings import EngineSettings
    from segment_duo.paths import Paths
    from segment_duo.session import Session

    paths = Paths.default()
    flags: Mapping[str, Any] = {"model": model, "device": device}
    resolved = load_config(flags, paths=paths)
    config = resolved.config
    if config.socket is None and not config.in_process and probe(EngineSettings.of(config, paths)) is None:
        # No daemon is left behind by somebody's notebook.
        resolved = dataclasses.replace(resolved, config=config.model_copy(update={"in_process": True}))
    return Session(resolved, paths)


def _open(
    session: Session,
    image: ImageLike,
    pixel_size_nm: float | tuple[float, float] | None,
    banner: str | int,
    page: int,
    frame: int | None,
) -> OpenImage:
    size = None
    if pixel_size_nm is not None:
        x, y = pixel_size_nm if isinstance(pixel_size_nm, tuple) else (pixel_size_nm, pixel_size_nm)
        size = PixelSize(float(x), float(y), "given", "high")
    if hasattr(image, "__array_interface__") or hasattr(image, "__array__"):
        import numpy as np

        rows = banner if isinstance(banner, int) else 0
        return session.open_array(np.asarray(image), banner=rows, pixel_size=size)
    ref = dataclasses.replace(session.reference(str(image)), frame=frame)
    return session.open_image(ref, page=page, banner=banner, pixel_size=size)
