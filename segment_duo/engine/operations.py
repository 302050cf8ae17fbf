"""What the engine's operations do: pixels to embeddings, prompts and parameters to masks. Joins models, caches and segmenters.

    request -> choice of model -> embedding (memory, disk, or the segmenter's own) -> the segmenter's answer -> wire objects

A handler has the name of its operation in the table (:data:`segment_duo.engine.protocol.OPERATIONS`). Models are reached through
``segmenters.base`` only. torch is imported by ``prepare`` and by the jobs, never when this module is: the engine answers ``status`` before that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from segment_duo.engine import status
from segment_duo.engine.answers import check_predictions, check_run, foreign, storable
from segment_duo.engine.cache import ID_DIGITS, EmbeddingCache, EmbeddingKey
from segment_duo.engine.logits import LogitsStore
from segment_duo.engine.prompted import candidate, prompt_arrays
from segment_duo.engine.protocol import (
    A,
    AutoEvent,
    AutoRequest,
    EmbedRequest,
    ImageMissing,
    ImageState,
    ModelRequest,
    Operation,
    PredictRequest,
    PredictResponse,
    Q,
    TrackEvent,
    TrackFrameRequest,
)
from segment_duo.engine.reports import AvailableModel, ModelList, ReleaseReport
from segment_duo.engine.settings import EngineSettings
from segment_duo.engine.tracks import Tracks, step_of, tracked_mask
from segment_duo.engine.worker import Job
from segment_duo.errors import ModelError
from segment_duo.lru import BoundedLru
from segment_duo.models import checkpoints, known, registry
from segment_duo.models.choice import ModelChoice, automatic_needs, needs
from segment_duo.results import PredictedObject
from segment_duo.segmenters.allocator import trim as trim_allocator
from segment_duo.segmenters.base import Capability, Embedding
from segment_duo.segmenters.plugins import SAM2
from segment_duo.text import safe
from segment_duo.types import ModelIdentity

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from segment_duo.engine.loaded_models import HeldModel, LoadedModels

MIB = 2**20
PIXELS_SHARE = 4
LOGITS_SHARE = 32
TRACKS_SHARE = 8
"""One part in so many of the memory cache is for pixels, for low-res logits (64 MiB of 2 GiB: 256 logits of an official model, the
candidates of some 85 clicks) and for objects that are followed (256 MiB: 30 of them); the rest is for embeddings and candidates."""

log = logging.getLogger("segduo.engine")


class Operations:
    """Computes. Implements :class:`segment_duo.engine.worker.Compute`."""

    def __init__(self, settings: EngineSettings) -> None:
        config = settings.config
        memory = config.memory_cache_mib * MIB
        self._settings = settings
        pixels, logits, tracks = memory // PIXELS_SHARE, memory // LOGITS_SHARE, memory // TRACKS_SHARE
        self._memory_bound = memory
        self._pixels: BoundedLru[str, npt.NDArray[np.uint8]] = BoundedLru(pixels)
        self._logits = LogitsStore(logits)
        self._tracks = Tracks(tracks)
        self._cache = EmbeddingCache(
            memory - pixels - logits - tracks, settings.paths.embeddings_dir, config.disk_cache_mib * MIB
        )
        self._making = threading.Lock()
        self._models: LoadedModels | None = None
        self._device_name = ""
        self._threads = 0
        self._release_wanted = False

    # -- any thread, at once ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        self._ready_models()

    def state(self, image_id: str, model: ModelRequest) -> ImageState:
        return self._state(image_id, self._choose(model))

    def put_pixels(self, image_id: str, pixels: npt.NDArray[np.uint8]) -> None:
        self._pixels.put(image_id, pixels, pixels.nbytes)

    def handler(self, operation: Operation[Q, A]) -> Callable[[Job, str, Q], Any]:
        return cast("Callable[[Job, str, Q], Any]", getattr(self, operation.name))

    def release(self, image_id: str | None) -> ReleaseReport:
        in_memory = {held[0] for held in self._cache.held()} | {key for key, *_ in self._pixels.items()}
        images = {held[:ID_DIGITS] for held in in_memory} | self._cache.images_on_disk()
        pixels = self._pixels.clear() if image_id is None else self._pixels.drop(image_id)
        embeddings, on_disk = self._cache.release(image_id)
        logits = self._logits.clear() if image_id is None else self._logits.drop_image(image_id)
        self._release_wanted = True
        count = len(images) if image_id is None else int(image_id[:ID_DIGITS] in images)
        return ReleaseReport(images=count, memory_bytes=pixels + embeddings + logits, disk_bytes=on_disk)

    def release_track(self, track: str) -> None:
        self._tracks.release(track)

    def models(self) -> ModelList:
        paths, config = self._settings.paths, self._settings.config
        default = registry.resolve_model(config, paths).name
        loaded = {model.sha256 for model in self._models.loaded()} if self._models else set()
        return ModelList(
            models=[
                AvailableModel(
                    id=model.id,
                    sha256=model.sha256,
                    description=model.description,
                    loaded=model.sha256 in loaded,
                    default=model.id == default,
                    auto_defaults=known.auto_defaults(model),
                    capabilities=sorted(model.capabilities),
                    licence=model.licence,
                    input_size=model.input_size,
                    options={name: asdict(option) for name, option in model.options.items()},
                )
                for model in known.known_models(paths, config)
                if model.usable
            ]
        )

    def status_fields(self) -> dict[str, Any]:
        models = self._models
        names = {model.sha256: model.id for model in models.loaded()} if models else {}
        fields: dict[str, Any] = {
            "images": status.held_images(self._pixels, self._cache, names),
            "memory_cache": status.memory_use(
                self._memory_bound, self._pixels, self._cache, self._logits.used + self._tracks.used
            ),
            "disk_cache": self._cache.disk_use(),
        }
        if models is not None:
            fields |= {
                "device": models.device.type,
                "device_name": self._device_name,
                "threads": self._threads,
                "models": models.loaded(),
                "device_memory": models.device_memory(),
            }
        return fields

    def trim(self) -> None:
        if self._models is not None:
            if self._release_wanted:
                self._release_wanted = False
                self._models.release_prepared()
            self._models.empty_device_cache()
        trim_allocator()

    # -- handlers, in the worker's thread -----------------------------------------------------------------------------

    def embed(self, job: Job, image_id: str, request: EmbedRequest) -> ImageState:
        started = time.monotonic()
        choice = self._choose(request.model)
        self._tell_begin(job, image_id, choice)
        known = self._cache.where(self._key(image_id, choice))
        computed = False
        if known is None:
            model = self._load(job, choice)
            computed = model.segmenter.embeds  # a method that keeps nothing of an image is ready for it as it is
            if computed:
                self._embedding(job, image_id, model)
        state = self._state(image_id, choice)
        return state.model_copy(update={"computed": computed, "seconds": time.monotonic() - started})

    def predict(self, job: Job, image_id: str, request: PredictRequest) -> PredictResponse:
        started = time.monotonic()
        choice = self._choose(request.model)
        choice.require(*needs(request.prompts))
        self._tell_begin(job, image_id, choice)
        model = self._load(job, choice)
        embedding = self._embedding(job, image_id, model)
        scope = self._scope(image_id, model.choice)
        arrays, lost = prompt_arrays(request, self._logits, scope, embedding, model.segmenter)
        job.progress("decoder", 0, len(arrays))
        with foreign(choice):
            answers = model.segmenter.predict(
                embedding, arrays, preview_max_side=request.preview_max_side, check=job.check
            )
            check_predictions(choice, answers, len(arrays), embedding, request.preview_max_side)
        objects = [
            PredictedObject(
                prompt.object_id,
                tuple(candidate(one, prompt, number, self._logits, scope) for number, one in enumerate(answer)),
                mask_input_lost=gone,
            )
            for prompt, answer, gone in zip(request.prompts, answers, lost, strict=True)
        ]
        return PredictResponse(objects=objects, seconds=time.monotonic() - started, model=model.identity)

    def auto(self, job: Job, image_id: str, request: AutoRequest) -> AutoEvent:
        started = time.monotonic()
        choice = self._choose(request.model)
        parameters = request.parameters
        choice.require(*automatic_needs(parameters))
        self._tell_begin(job, image_id, choice)
        model = self._load(job, choice)
        embeds = model.segmenter.embeds
        embedding = self._embedding(job, image_id, model) if embeds and not parameters.tile else None
        pixels = self._pixels.get(image_id)
        if pixels is None:
            if embedding is None or parameters.crop_n_layers or parameters.scale != "whole":
                raise ImageMissing
            pixels = _shape_only(embedding)

        def embed_crop(box: tuple[int, int, int, int], compute: Callable[[], Embedding]) -> Embedding:
            job.check()
            return self._cached(EmbeddingKey(image_id, choice.sha256, box), model, compute)

        with foreign(choice):
            run = model.segmenter.automatic(
                pixels,
                parameters,
                embedding=embedding,
                embed_crop=embed_crop,
                on_progress=job.progress,
                should_cancel=lambda: job.cancelled,
                candidates=self._cache.candidates(image_id, choice.sha256),
            )
            check_run(choice, run, pixels)
        if run.candidates is not None:
            self._cache.put_candidates(image_id, choice.sha256, run.candidates)
        for mask in run.masks:
            job.emit(AutoEvent("mask", mask=storable(mask)))
        return AutoEvent(
            "done",
            seconds=time.monotonic() - started,
            notes=run.notes,
            candidates_reused=run.reused,
            model=model.identity,
        )

    def track(self, job: Job, image_id: str, request: TrackFrameRequest) -> TrackEvent:
        started = time.monotonic()
        choice = self._choose(request.model)
        choice.require(Capability.TRACK)
        self._tell_begin(job, image_id, choice)
        model = self._load(job, choice)
        pixels = self._pixels.get(image_id)
        if pixels is None:
            raise ImageMissing
        with foreign(choice):
            tracker = self._tracks.open(request, model)
            found = tracker.step(pixels, step_of(request), on_progress=job.progress, check=job.check)
        self._tracks.keep(request.track)
        if self._cache.where(self._key(image_id, choice)) is None:
            # Frames come by once: kept, they would push out the images that somebody works on. Clicked ones have an embedding.
            self._pixels.drop(image_id)
        height, width = pixels.shape[:2]
        return TrackEvent(
            "done",
            seconds=time.monotonic() - started,
            objects=tuple(tracked_mask(one, height, width) for one in found),
            looks_back=tracker.looks_back,
            model=model.identity,
        )

    def _tell_begin(self, job: Job, image_id: str, choice: ModelChoice) -> None:
        """One line in the log: when the engine dies, its end tells over which work."""
        state = self._state(image_id, choice)
        size = f"{state.width} x {state.height}" if state.width else "size not in memory"
        log.info("%s of %s (%s) with %s", job.kind, image_id[:12], size, safe(choice.id))

    # -- models -------------------------------------------------------------------------------------------------------

    def _choose(self, request: ModelRequest) -> ModelChoice:
        """Which model a request means: the pair it names, the engine's own of that id, or the engine's default.

        Raises:
            ModelError, ConfigError: there is no such model here.
        """
        paths = self._settings.paths
        if request.config and request.checkpoint:
            sha256 = request.sha256 or checkpoints.file_sha256(Path(request.checkpoint), paths)
            return ModelChoice(request.id or known.CUSTOM, request.config, request.checkpoint, sha256)
        choice = registry.resolve_model(self._settings.config, paths, request.id)
        if request.sha256 and request.sha256 != choice.sha256:
            raise ModelError(
                f"the engine's model '{choice.id}' has other weights than this command's",
                "Pull or copy the same checkpoint on both sides, or leave the choice to the engine."
                if choice.family == SAM2
                else "It was changed while the engine ran: `segduo engine stop`; the engine starts again by itself.",
            )
        return choice

    def _load(self, job: Job, choice: ModelChoice) -> HeldModel:
        job.model = choice.id
        job.progress("loading the model")
        model = self._ready_models().load(choice, job.check)
        job.check()
        return model

    def _ready_models(self) -> LoadedModels:
        """Import torch, choose the device, set the threads: once. Jobs that come meanwhile wait here."""
        with self._making:
            if self._models is None:
                import torch

                from segment_duo.engine.device import allowed_threads, choose_device, device_name
                from segment_duo.engine.loaded_models import LoadedModels

                config = self._settings.config
                device = choose_device(config.device)
                threads = config.threads or min(torch.get_num_threads(), allowed_threads() or torch.get_num_threads())
                torch.set_num_threads(threads)
                self._threads = torch.get_num_threads()
                self._device_name = device_name(device)
                self._models = LoadedModels(device, self._threads, self._settings.paths)
                log.info("computing on %s (%s), %d threads", device.type, self._device_name, self._threads)
            return self._models

    # -- embeddings ---------------------------------------------------------------------------------------------------

    def _embedding(self, job: Job, image_id: str, model: HeldModel) -> Embedding:
        """The embedding of a whole image: from the cache, or computed from the pixels.

        Raises:
            ImageMissing: neither is here.
        """

        def compute() -> Embedding:
            pixels = self._pixels.get(image_id)
            if pixels is None:
                raise ImageMissing
            job.progress("encoder")
            others = self._with_it(job, model)
            with foreign(model.choice):
                first, *rest = (
                    model.segmenter.embed_many([pixels, *others.values()])
                    if others
                    else [model.segmenter.embed(pixels)]
                )
                found = dict(zip(others, rest, strict=True))
            for other, embedding in found.items():
                self._cache.put(self._key(other, model.choice), embedding)
            return first

        embedding = self._cached(self._key(image_id, model.choice), model, compute)
        job.check()
        return embedding

    def _with_it(self, job: Job, model: HeldModel) -> dict[str, npt.NDArray[np.uint8]]:
        """Images, by id, that go through the encoder along with the job's: those of the jobs right after it that need the same model's embedding.

        Up to the first job that does not: a click must not wait longer.
        """
        most = self._settings.config.encoder_batch or model.segmenter.embed_batch
        found: dict[str, npt.NDArray[np.uint8]] = {}
        for other in job.upcoming() if most > 1 else ():
            asked = other.request
            embeds = isinstance(asked, EmbedRequest) or (isinstance(asked, AutoRequest) and not asked.parameters.tile)
            if not embeds or asked.model != job.request.model or len(found) + 1 >= most:
                break
            pixels = self._pixels.peek(other.image)
            known = self._cache.where(self._key(other.image, model.choice)) is not None
            if pixels is not None and not known and other.image != job.image and not other.cancelled:
                found[other.image] = pixels
        return found

    def _cached(self, key: EmbeddingKey, model: HeldModel, compute: Callable[[], Embedding]) -> Embedding:
        held = self._cache.get(key, model.segmenter.restore)
        if held is None:
            held = compute()
            self._cache.put(key, held)
        return held

    def _key(self, image_id: str, choice: ModelChoice) -> EmbeddingKey:
        return EmbeddingKey(image_id, choice.sha256)

    def _state(self, image_id: str, choice: ModelChoice) -> ImageState:
        key = self._key(image_id, choice)
        pixels = self._pixels.peek(image_id)
        size = self._cache.size_of(key) if pixels is None else (pixels.shape[0], pixels.shape[1])
        return ImageState(
            id=image_id,
            height=size[0] if size else 0,
            width=size[1] if size else 0,
            pixels=pixels is not None,
            embedding=self._cache.where(key),
            candidates=self._cache.has_candidates(image_id, choice.sha256),
            model=ModelIdentity(choice.id, choice.sha256),
            device=self._models.device.type if self._models else "",
        )

    @staticmethod
    def _scope(image_id: str, choice: ModelChoice) -> str:
        return f"{image_id}/{choice.sha256}"


def _shape_only(embedding: Embedding) -> npt.NDArray[np.uint8]:
    """An array of the image's shape that takes no memory: what the generator needs when the embedding is here and the pixels are not."""
    import numpy as np

    return np.broadcast_to(np.uint8(0), (embedding.height, embedding.width, 3))
