"""Choose a model's automatic defaults: ``python -m benchmarks.quality.thresholds [FOLDER] [--names FILE] [--model ID] [--scenes N]``.

Images are the labelled pictures of FOLDER (all, or those named in a file) and N held-out scenes. Each is decoded once with low thresholds; every
combination is then answered from those candidates. Prints one JSON line a combination, best F1 at IoU 0.5 first. The scenes are other ones than those
that ``--held-out`` of ``python -m benchmarks.quality`` scores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.quality.__main__ import folder_images, held_out_images
from benchmarks.quality.scoring import AutomaticScore
from segment_duo.config import Config
from segment_duo.masks.rle import decode
from segment_duo.models.registry import resolve_model
from segment_duo.parameters import AutoParameters
from segment_duo.paths import Paths
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.build import build_model
from segment_duo.segmenters.sam2.predictor import Predictor
from segment_duo.training.nano.scenes import HELD_OUT_SEED

PREDICTED_IOU = (0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
STABILITY = (0.3, 0.4, 0.5, 0.6, 0.75)
OVERLAP = (0.15, 0.2, 0.3, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sweep thresholds of automatic masks.")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--names", type=Path, metavar="FILE", help="only the pictures named here, one a line")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--best", type=int, default=12, help="lines to print")
    options = parser.parse_args()
    choice = resolve_model(Config(), Paths.default(), options.model)
    predictor = Predictor(build_model(choice.config, options.checkpoint or choice.checkpoint))
    base = AutoParameters(pred_iou_thresh=min(PREDICTED_IOU), stability_score_thresh=min(STABILITY))
    grid = list(itertools.product(PREDICTED_IOU, STABILITY, OVERLAP))
    scores = {point: AutomaticScore() for point in grid}
    names = frozenset(options.names.read_text(encoding="utf-8").split()) if options.names else None
    pictures = folder_images(options.folder, None, names) if options.folder else iter(())
    for image in itertools.chain(pictures, held_out_images(options.scenes, HELD_OUT_SEED + 10_000)):
        candidates = None
        for iou, stability, overlap in grid:
            parameters = replace(base, pred_iou_thresh=iou, stability_score_thresh=stability, box_nms_thresh=overlap)
            run = AutomaticMaskGenerator(predictor, parameters).generate(image.pixels, candidates=candidates)
            candidates = candidates or run.candidates
            found = [(float(m.predicted_iou or 0.0), decode(m.rle)) for m in run.masks]
            scores[iou, stability, overlap].add(found, image)
        sys.stderr.write(f"{image.name}\n")

    def f1(score: AutomaticScore) -> float:
        precision, recall = score.precision(), score.recall()
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    for point in sorted(grid, key=lambda p: -f1(scores[p]))[: options.best]:
        score = scores[point]
        row = {
            "pred_iou_thresh": point[0],
            "stability_score_thresh": point[1],
            "box_nms_thresh": point[2],
            "F1": round(f1(score), 3),
            "precision": round(score.precision(), 3),
            "recall": round(score.recall(), 3),
            "AP50": round(score.average_precision(0.5), 3),
        }
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
