"""Prompts on frames, and following them by nano's memory."""

from __future__ import annotations

import numpy as np
import pytest

from segment_duo.errors import PromptError
from segment_duo.frame_prompts import FramePrompt, parse_frame_box, parse_frame_file, parse_frame_point, together
from segment_duo.masks import rle
from segment_duo.masks.formats.sequence import SequenceSet
from segment_duo.types import Box, Point
from tests.cli_shell import Shell
from tests.tracking.films import growing, write_stack


def test_points_and_boxes_name_their_object_and_frame() -> None:
    assert parse_frame_point("12,8") == FramePrompt(1, 0, (Point(12, 8, 1),))
    assert parse_frame_point("12,8,0@7", frame=3) == FramePrompt(1, 7, (Point(12, 8, 0),))
    assert parse_frame_point("12,8,1,4", frame=3) == FramePrompt(4, 3, (Point(12, 8, 1),))
    assert parse_frame_box("1,2,3,4,5@6", 1) == FramePrompt(5, 6, (), Box(1, 2, 3, 4))
    for wrong in ("12", "12,8,1,0", "12,8@x", "12,8@-1", "12,8,1,a"):
        with pytest.raises(PromptError):
            parse_frame_point(wrong)


def test_files_of_points_and_boxes() -> None:
    text = "frame,object,x,y,label\n# a comment\n0,1,10,11,1\n0,1,14,11,0\n5,2,30,31,\n"
    first, second = together(parse_frame_file(text, name="a.csv"))
    assert first == FramePrompt(1, 0, (Point(10, 11, 1), Point(14, 11, 0)))
    assert second == FramePrompt(2, 5, (Point(30, 31, 1),))
    assert parse_frame_file("frame;object;x0;y0;x1;y1\n3;2;1;2;9;9\n", name="b")[0].box == Box(1, 2, 9, 9)
    assert FramePrompt.from_record(first.record()) == first
    for wrong in ("", "x,y\n1,2\n", "frame,object,x,y,colour\n", "frame,x,y\n1,2\n", "frame,x,y\n1.5,2,3\n"):
        with pytest.raises(PromptError):
            parse_frame_file(wrong, name="c")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_objects_are_followed_and_a_correction_changes_nothing_else(shell: Shell) -> None:
    pictures, truth = growing(5)
    write_stack(shell.folder / "film.tif", pictures)
    common = ("--no-tables", "--json")
    done = shell.run(
        "track", "film.tif", *common, "--box", "13,19,35,41", "-p", "66,34,1,2@1", "--direction", "both"
    ).ok()
    assert (done.json["method"], done.json["frames"], done.json["objects"]) == ("memory", 5, 2)
    with SequenceSet.open(shell.folder / "masks/film.pkl") as found:
        first = {seen.frame: {mask.id: mask.rle for mask in seen.masks} for seen in found}
        assert found.head.provenance.parameters["prompts"][0]["box"] == [13, 19, 35, 41]
    box = rle.decode(first[0][1])
    assert iou(box, truth[0] == 1) > 0.8  # prompted frames need no memory
    for frame in (2, 4):
        for number in (1, 2):
            assert iou(rle.decode(first[frame][number]), truth[frame] == number) > 0.7

    fixed = shell.run("track", "film.tif", *common, "--onto", "0", "-p", "24,30,1,1@3", "-p", "66,34,0,1@3").ok()
    assert fixed.json["version"] == "1"
    with SequenceSet.open(shell.folder / "masks/film_1.pkl") as found:
        second = {seen.frame: {mask.id: mask.rle for mask in seen.masks} for seen in found}
        assert found.head.provenance.parent == "0"
    assert all(second[frame] == first[frame] for frame in range(3))
    assert all(second[frame].get(2) == first[frame].get(2) for frame in range(5))
    assert 1 in second[3]

    refused = shell.run("track", "film.tif", *common, "--onto", "0", "-p", "24,30@1", "--frames", "0:3")
    assert refused.code == 2
    assert "other frames" in refused.stderr


def test_several_points_of_an_object_are_taken_in_turn_as_by_point(shell: Shell) -> None:
    pictures, _ = growing(2)
    write_stack(shell.folder / "film.tif", pictures)
    clicks = ("-p", "24,30", "-p", "29,30", "-p", "40,30,0")
    shell.run("track", "film.tif", "--no-tables", "--suffix", "followed", *clicks).ok()
    records = shell.run("point", "film.tif", "--frame", "0", *clicks, "--json", "--no-save").ok().json["records"]
    with SequenceSet.open(shell.folder / "masks/film_followed.pkl") as found:
        assert found.frame(0).masks[0].rle.counts == records[0]["segmentation"]["counts"]
        assert len(found.frame(1).masks) == 1


def test_masks_of_a_set_are_followed(shell: Shell) -> None:
    pictures, truth = growing(3)
    write_stack(shell.folder / "film.tif", pictures)
    shell.run("auto", "film.tif", "--model", "watershed").ok()
    done = shell.run("track", "film.tif", "--from-set", "film.tif@0", "--no-tables", "--json").ok()
    assert done.json["objects"] == 2
    with SequenceSet.open(shell.folder / "masks/film_1.pkl") as found:
        masks = found.frame(0).masks
    assert all(np.unique(truth[0][rle.decode(mask.rle)]).tolist() in ([0, 1], [1], [0, 2], [2]) for mask in masks)
