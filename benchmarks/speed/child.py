"""One measurement in a process of its own: ``python -m benchmarks.speed.child JSON`` prints one JSON line.

Peak memory is the process's; wall and CPU seconds are those of the work alone, without imports and loading.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from PIL import Image

from benchmarks.speed import scene
from segment_duo.parameters import AutoParameters

warnings.simplefilter("ignore")


def stock(asked: dict[str, Any]) -> dict[str, Any]:
    """``SAM2AutomaticMaskGenerator``, its stages timed from outside."""
    import numpy as np
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    from tests.engine_stock import feature_sizes

    model = scene.model(asked["model"])
    p = AutoParameters(**asked["parameters"])
    generator = SAM2AutomaticMaskGenerator(
        model,
        points_per_side=p.points_per_side,
        pred_iou_thresh=p.pred_iou_thresh,
        stability_score_thresh=p.stability_score_thresh,
        stability_score_offset=p.stability_score_offset,
        mask_threshold=p.mask_threshold,
        box_nms_thresh=p.box_nms_thresh,
        output_mode="coco_rle",
    )
    predictor = generator.predictor
    predictor._bb_feat_sizes = feature_sizes(model)
    seconds: dict[str, float] = {}
    _time(predictor, "set_image", seconds, "encoder")
    _time(model.sam_mask_decoder, "forward", seconds, "decoder")
    _time(predictor._transforms, "postprocess_masks", seconds, "up-sampling")
    pixels = scene.image(asked["megapixels"])
    records, result = _measure(lambda: generator.generate(pixels))
    seconds["filters, RLE"] = result["wall"] - sum(seconds.values())
    digest = hashlib.sha256(
        json.dumps(
            [
                [r["segmentation"]["counts"], r["bbox"], r["predicted_iou"], r["stability_score"], r["area"]]
                for r in records
            ]
        ).encode()
    )
    return result | {"masks": len(records), "stages": seconds, "digest": digest.hexdigest(), "numpy": np.__version__}


def ours(asked: dict[str, Any]) -> dict[str, Any]:
    """Our generator."""
    import torchvision  # noqa: F401 - stock has imported it before its clock starts, too

    from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
    from segment_duo.segmenters.sam2.predictor import Predictor

    predictor = Predictor(scene.model(asked["model"]))
    p = AutoParameters(**asked["parameters"])
    pixels = scene.image(asked["megapixels"])
    run, result = _measure(lambda: AutomaticMaskGenerator(predictor, p).generate(pixels))
    digest = hashlib.sha256(
        json.dumps(
            [[m.rle.counts, list(m.bbox), m.predicted_iou, m.stability_score, m.area] for m in run.masks]
        ).encode()
    )
    stages = {"encoder": 0.0, "decoder": 0.0, "masks": 0.0} | run.seconds
    return result | {"masks": len(run.masks), "stages": stages, "digest": digest.hexdigest(), "points": run.points}


def throughput(asked: dict[str, Any]) -> dict[str, Any]:
    """PNG files to masks, one after the other: seconds of reading (decoding and stretch included), of all, and processor seconds."""
    from segment_duo.images import read_image
    from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
    from segment_duo.segmenters.sam2.predictor import Predictor

    predictor = Predictor(scene.model(asked["model"]))
    p = AutoParameters(**asked["parameters"])
    files = []
    for seed in range(asked["images"]):
        file = io.BytesIO()
        Image.fromarray(scene.image(asked["megapixels"], seed)).save(file, "PNG")
        files.append(file.getvalue())
    reading = 0.0

    def work() -> None:
        nonlocal reading
        for file in files:
            start = time.perf_counter()
            pixels = read_image(file, name="scene.png").pixels
            reading += time.perf_counter() - start
            AutomaticMaskGenerator(predictor, p).generate(pixels)

    _, used = _measure(work)
    return used | {"reading": reading, "images": len(files)}


def calibrate(asked: dict[str, Any]) -> dict[str, Any]:
    """Parameters for a model and an image."""
    from segment_duo.segmenters.sam2.predictor import Predictor

    predictor = Predictor(scene.model(asked["model"]))
    p = scene.parameters(asked["model"], predictor, scene.image(asked["megapixels"]), asked["points"])
    return {"parameters": {k: v for k, v in asdict(p).items() if v != getattr(AutoParameters(), k)}}


def clicks(asked: dict[str, Any]) -> dict[str, Any]:
    """From a cached embedding to masks: medians in milliseconds."""
    import numpy as np

    from segment_duo.segmenters.base import PromptArrays
    from segment_duo.segmenters.sam2.predictor import Predictor

    predictor = Predictor(scene.model(asked["model"])).reassociated  # as the engine answers clicks
    pixels = scene.image(asked["megapixels"])
    embedding = predictor.embed(pixels)
    height, width = pixels.shape[:2]
    rng = np.random.default_rng(1)
    points = rng.random((40, 2)).astype(np.float32) * np.array([width, height], dtype=np.float32)
    one = np.array([1])

    def click(i: int, **fields: Any) -> PromptArrays:
        return PromptArrays(points[i : i + 1], one, **fields)

    previous = predictor.predict(embedding, [click(0)])[0][0].low_res
    two = PromptArrays(points[:2], np.array([1, 0]), mask_input=previous)
    cases: dict[str, Callable[[int], Any]] = {
        "first click, image size": lambda i: predictor.predict(embedding, [click(i)]),
        "first click, preview": lambda i: predictor.predict(embedding, [click(i)], preview_max_side=1024),
        "refinement click, image size": lambda _: predictor.predict(embedding, [two]),
        "refinement click, preview": lambda _: predictor.predict(embedding, [two], preview_max_side=1024),
        "10 objects at once, preview": lambda _: predictor.predict(
            embedding, [click(i) for i in range(10)], preview_max_side=1024
        ),
    }
    out = {}
    for name, call in cases.items():
        call(0)
        times = []
        for i in range(1, 8):
            start = time.perf_counter()
            call(i)
            times.append((time.perf_counter() - start) * 1e3)
        out[name] = statistics.median(times)
    return {"clicks": out}


def _time(owner: Any, name: str, seconds: dict[str, float], stage: str) -> None:
    call = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start

    setattr(owner, name, timed)


def _measure(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    used = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return result, used | {"peak_mib": peak / 2**20}


MODES = {"stock": stock, "ours": ours, "calibrate": calibrate, "clicks": clicks, "throughput": throughput}

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    print(json.dumps(MODES[request["mode"]](request)))
