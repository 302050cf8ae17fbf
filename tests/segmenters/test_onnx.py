"""Pairs of ONNX files: looked through, matched, run, and used by the real program. The pairs are exported here, of a random module and of nano."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segment_duo.config import Config
from segment_duo.errors import EngineFailed, ModelError, UsageError
from segment_duo.masks.rle import decode
from segment_duo.models import known, licences, registry
from segment_duo.models.adding import add_onnx
from segment_duo.parameters import AutoParameters
from segment_duo.segmenters import plugins
from segment_duo.segmenters.base import LoadRequest, PromptArrays, SegmenterInfo
from segment_duo.segmenters.layout import Layout
from segment_duo.segmenters.onnx import Signature
from segment_duo.segmenters.onnx.contents import external_files, read_contents
from segment_duo.segmenters.onnx.pair import Pair
from segment_duo.segmenters.onnx.probe import probe, try_out
from segment_duo.segmenters.onnx.segmenter import OnnxPredictor, chosen
from segment_duo.segmenters.onnx.signature import Port, Ports, match
from segment_duo.segmenters.sam2.automatic import AutomaticMaskGenerator
from segment_duo.segmenters.sam2.segmenter import SamSegmenter
from segment_duo.segmenters.sam2.upsample import Upsampler, cut_out
from segment_duo.types import Mask
from tests.cli_shell import Shell
from tests.engine_fixtures import Home
from tests.engine_stock import loose, picture, small_predictor
from tests.onnx_pairs import LOW, SIDE, TorchPredictor, nano_sam2, random_sam1

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAM1 = AutoParameters(points_per_side=5, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
"""Every mask of every point: random weights make poor ones."""


@pytest.fixture(scope="module")
def sam1(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, TorchPredictor]:
    return random_sam1(tmp_path_factory.mktemp("sam1"))


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return nano_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def through_onnx(sam1: tuple[Path, Path, TorchPredictor]) -> OnnxPredictor:
    return predictor(sam1[0], sam1[1])


def predictor(encoder: Path, decoder: Path) -> OnnxPredictor:
    return OnnxPredictor(Pair(encoder, decoder, try_out(encoder, decoder, None, None), 1, "pair"))


def same(ours: tuple[Mask, ...], theirs: tuple[Mask, ...]) -> None:
    """Equal within rounding: a pixel in a thousand of a mask, 1e-4 of a score."""
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        one, other = decode(a.rle), decode(b.rle)
        assert np.count_nonzero(one ^ other) <= 1 + np.count_nonzero(one | other) // 1000
        assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)
        assert a.point_coords == b.point_coords


class TestEqualToTorch:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"crop_n_layers": 1, "points_per_side": 3, "crop_nms_thresh": 1.0},
            {"tile": 150, "points_per_side": 3},
            {"fast": True},
        ],
    )
    def test_automatic_masks_of_a_pair_in_sam1_layout(
        self, sam1: tuple[Path, Path, TorchPredictor], through_onnx: OnnxPredictor, more: dict[str, Any]
    ) -> None:
        p = dataclasses.replace(SAM1, **more)
        pixels = picture(170, 260)
        ours = AutomaticMaskGenerator(through_onnx, p).generate(pixels)
        same(ours.masks, AutomaticMaskGenerator(sam1[2], p).generate(pixels).masks)
        assert ours.masks[0].rle.height == 170

    def test_refined_automatic_masks(
        self, sam1: tuple[Path, Path, TorchPredictor], through_onnx: OnnxPredictor
    ) -> None:
        p = dataclasses.replace(SAM1, use_m2m=True, points_per_side=3)
        pixels = picture(200, 140)
        same(
            AutomaticMaskGenerator(through_onnx, p).generate(pixels).masks,
            AutomaticMaskGenerator(sam1[2], p).generate(pixels).masks,
        )

    def test_nano_as_a_pair_in_sam2_layout_beside_the_exact_decoder(self, nano: tuple[Path, Path]) -> None:
        through = predictor(*nano)
        pixels = picture(200, 260)
        p = dataclasses.replace(loose(), points_per_side=4)
        same(
            AutomaticMaskGenerator(through, p).generate(pixels).masks,
            AutomaticMaskGenerator(small_predictor(), p).generate(pixels).masks,
        )

    def test_prompts_of_nano(self, nano: tuple[Path, Path]) -> None:
        through, exact = predictor(*nano), small_predictor()
        pixels = picture(200, 260)
        ours, theirs = through.embed(pixels), exact.embed(pixels)
        first = exact.predict(theirs, [points((120, 90))])[0][0]
        prompts = [
            points((120, 90)),
            points((40, 50), (60, 70)),
            box((20, 30, 90, 100)),
            dataclasses.replace(points((120, 90)), mask_input=first.low_res),
        ]
        found, expected = (one.predict(e, prompts) for one, e in ((through, ours), (exact, theirs)))
        # Ours has no fallback from an unstable single mask; the first prompt has three candidates.
        assert [len(answer) for answer in found] == [len(answer) for answer in expected] == [3, 1, 1, 1]
        for a, b in zip(found[0], expected[0], strict=True):
            assert np.count_nonzero(a.array() ^ b.array()) <= 2
            assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)
            assert a.low_res == pytest.approx(b.low_res, abs=2e-3)


def points(*at: tuple[float, float]) -> PromptArrays:
    return PromptArrays(np.array(at, np.float32), np.ones(len(at), np.int64))


def box(corners: tuple[float, float, float, float]) -> PromptArrays:
    return PromptArrays(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), corners)


class TestPaddedLayout:
    def test_masks_are_cropped_to_the_image_and_then_up_sampled(self) -> None:
        """As SAM 1 does it in two steps: logits to the square, the padding cut, the rest to the image."""
        layout = Layout("sam1", 1024)
        height, width = 300, 500
        generator = torch.Generator().manual_seed(3)
        coarse = torch.randn(1, 1, 9, 9, generator=generator)
        logits = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0] * 6
        up = Upsampler((256, 256), (height, width), torch.device("cpu"), layout.canvas(height, width))
        ours = up.binary(cut_out(logits, -1.0)[0], 0.0)
        square = torch.nn.functional.interpolate(logits[None], (1024, 1024), mode="bilinear")
        rows, cols = layout.shrunk(height, width)
        assert (rows, cols) == (614, 1024)
        stock = torch.nn.functional.interpolate(square[..., :rows, :cols], (height, width), mode="bilinear")[0, 0] > 0
        full = np.zeros((height, width), bool)
        full[ours.top : ours.top + ours.pixels.shape[0], ours.left : ours.left + ours.pixels.shape[1]] = ours.pixels
        assert np.count_nonzero(full ^ stock.numpy()) < 0.004 * full.size
        measured = up.measure(cut_out(logits, -1.0)[0], 0.0, 1.0)
        assert measured.box.tolist()[2] < width
        assert measured.box.tolist()[3] < height

    def test_what_lies_in_the_padding_alone_is_no_mask(self) -> None:
        logits = torch.full((1, 32, 32), -5.0)
        logits[0, 25:30, 3:9] = 5.0
        up = Upsampler((32, 32), (60, 120), torch.device("cpu"), (120, 120))
        cut = cut_out(logits, -1.0)[0]
        assert up.binary(cut, 0.0).area == 0
        assert up.measure(cut, 0.0, 1.0).box.tolist() == [0, 0, 0, 0]

    def test_a_point_finds_its_own_pixel_again(self) -> None:
        layout = Layout("sam1", 128)
        pixels = np.zeros((60, 100, 3), np.uint8)
        pixels[40, 70] = 255
        grey = layout.model_input(pixels)[0].sum(0)
        assert tuple(grey.shape) == (128, 128)
        y, x = divmod(int(grey.argmax()), 128)
        at = layout.coordinates(torch.tensor([[70.5, 40.5]]), 60, 100)[0]
        assert (abs(float(at[0]) - x) < 1.5, abs(float(at[1]) - y) < 1.5) == (True, True)
        assert not grey[80:].any()  # padding is zero after normalisation


def test_four_masks_are_the_single_one_and_three() -> None:
    masks, iou = torch.arange(8.0).view(2, 4, 1, 1), torch.tensor([[0.1, 0.9, 0.3, 0.2], [0.8, 0.1, 0.2, 0.3]])
    assert chosen(masks, iou, multimask_output=True)[0].flatten().tolist() == [1, 2, 3, 5, 6, 7]
    assert chosen(masks, iou, multimask_output=False)[0].flatten().tolist() == [0, 4]
    assert chosen(masks[:, 1:], iou[:, 1:], multimask_output=False)[0].flatten().tolist() == [1, 7]
    assert chosen(masks[:, :1], iou[:, :1], multimask_output=True)[1].flatten().tolist() == pytest.approx([0.1, 0.8])


class TestSignature:
    def test_of_the_exported_pairs(self, sam1: tuple[Path, Path, TorchPredictor], nano: tuple[Path, Path]) -> None:
        found = probe(sam1[0], sam1[1], None, None)
        assert (found.layout, found.size, found.low_size, found.candidates, found.batched) == (
            "sam1",
            SIDE,
            (LOW, LOW),
            4,
            True,
        )
        assert found.features == (("output", "image_embeddings"),)
        two = try_out(*nano, None, None)
        assert (two.layout, two.size, two.masks) == ("sam2", 512, "masks")
        assert [port for _, port in two.features] == ["image_embed", "high_res_feats_0", "high_res_feats_1"]

    def test_a_decoder_for_one_prompt_gets_one_at_a_time(self, tmp_path: Path, through_onnx: OnnxPredictor) -> None:
        encoder, decoder, _ = random_sam1(tmp_path, batched=False)
        single = predictor(encoder, decoder)
        assert single.most == 1
        assert through_onnx.most > 1
        pixels = picture(120, 120)
        same(*(AutomaticMaskGenerator(one, SAM1).generate(pixels).masks for one in (single, through_onnx)))

    @pytest.mark.parametrize(
        ("encoder", "decoder", "said"),
        [
            ({}, {"drop": "point_labels"}, "the decoder has no input for their labels"),
            ({}, {"drop": "has_mask_input"}, "needs both or none"),
            ({}, {"drop": "low_res_masks"}, "has no output with the low-res logits"),
            ({}, {"drop": "iou_predictions"}, "has no output with the predicted IoU"),
            ({}, {"add": ("strange", (1, 7))}, "has an input of unknown meaning: strange [1, 7]"),
            ({"add": ("second", (1,))}, {}, "the encoder has 2 inputs instead of one"),
            ({"image": (1, 4, 64, 64)}, {}, "takes no image of three channels"),
            ({"image": (1, 3, 64, 96)}, {}, "takes images of 64 x 96 pixels"),
            ({"out": (1, 16, 8, 8)}, {}, "encoder and decoder do not fit"),
        ],
    )
    def test_what_does_not_fit_is_named(self, encoder: dict[str, Any], decoder: dict[str, Any], said: str) -> None:
        kind = "tensor(float)"
        one = [Port("image", kind, encoder.get("image", (1, 3, 64, 64)))]
        one += [Port(encoder["add"][0], kind, encoder["add"][1])] if "add" in encoder else []
        inputs = {
            "image_embeddings": (1, 32, 8, 8),
            "point_coords": (1, "n", 2),
            "point_labels": (1, "n"),
            "mask_input": (1, 1, 32, 32),
        }
        inputs |= {"has_mask_input": (1,)} | dict([decoder["add"]] if "add" in decoder else [])
        outputs = ["iou_predictions", "low_res_masks"]
        ports = tuple(Port(name, kind, shape) for name, shape in inputs.items() if name != decoder.get("drop"))
        given = tuple(Port(name, kind, (None,) * 4) for name in outputs if name != decoder.get("drop"))
        with pytest.raises(ModelError) as raised:
            match(
                Ports(tuple(one), (Port("out", kind, encoder.get("out", (1, 32, 8, 8))),)),
                Ports(ports, given),
                None,
                None,
            )
        assert said in raised.value.message
        assert raised.value.hint

    def test_an_encoder_that_takes_the_picture_itself(self) -> None:
        kind = "tensor(uint8)"
        number = "tensor(float)"
        embed = Port("embed", number, (1, 32, 8, 8))
        prompts = (Port("point_coords", number, (1, None, 2)), Port("point_labels", number, (1, None)))
        decoder = Ports((embed, *prompts), (Port("low_res_masks", number, ()), Port("scores", number, ())))
        found = match(
            Ports((Port("x", kind, ("h", "w", 3)),), (Port("e", "tensor(float)", (1, 32, 8, 8)),)), decoder, None, None
        )
        assert (found.preparation, found.channels_last, found.image_rank, found.fixed) == ("raw", True, 3, False)
        assert "mask input" not in found.capabilities

    def test_masks_at_image_size_alone_are_refused(
        self, sam1: tuple[Path, Path, TorchPredictor], tmp_path: Path
    ) -> None:
        model = onnx.load(str(sam1[1]))
        del model.graph.output[2]
        onnx.save(model, str(tmp_path / "d.onnx"))
        with pytest.raises(ModelError, match="is 128 x 128, not the low-res logits"):
            probe(sam1[0], tmp_path / "d.onnx", None, None)


class TestUntrustedFiles:
    def test_operators_of_others_are_refused(self, sam1: tuple[Path, Path, TorchPredictor], tmp_path: Path) -> None:
        model = onnx.load(str(sam1[1]))
        model.graph.node[5].domain = "com.evil"
        onnx.save(model, str(tmp_path / "d.onnx"))
        with pytest.raises(ModelError, match=r"not ONNX's own: com\.evil:"):
            external_files(tmp_path / "d.onnx")

    def test_they_are_seen_in_the_branch_of_an_if(self, tmp_path: Path) -> None:
        helper = onnx.helper
        inner = helper.make_graph([helper.make_node("Run", [], ["y"], domain="com.evil")], "inner", [], [])
        node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
        onnx.save(helper.make_model(helper.make_graph([node], "g", [], [])), str(tmp_path / "m.onnx"))
        assert read_contents(tmp_path / "m.onnx").operators == {"com.evil:Run"}

    @pytest.mark.parametrize(
        ("location", "said"),
        [
            ("../secret", "asks for the file"),
            ("/etc/passwd", "asks for the file"),
            ("a/b", "asks for the file"),
            ("gone.bin", "no file beside it"),
            ("link.bin", "no file beside it"),
        ],
    )
    def test_weights_elsewhere_are_refused(self, tmp_path: Path, location: str, said: str) -> None:
        (tmp_path / "link.bin").symlink_to("/etc/passwd")
        with pytest.raises(ModelError, match=said):
            external_files(with_weights(tmp_path, location))

    def test_weights_beside_the_file_are_taken(self, tmp_path: Path) -> None:
        (tmp_path / "weights.bin").write_bytes(bytes(16))
        assert external_files(with_weights(tmp_path, "weights.bin")) == [tmp_path / "weights.bin"]

    def test_damaged_files_end_in_an_error_of_ours(
        self, sam1: tuple[Path, Path, TorchPredictor], tmp_path: Path
    ) -> None:
        good = sam1[0].read_bytes()
        rng = np.random.default_rng(0)
        file = tmp_path / "m.onnx"
        for trial in range(300):
            damaged = bytearray(good[: rng.integers(1, len(good))] if trial % 3 == 0 else good)
            for at in rng.integers(0, min(len(damaged), 4000), 1 + trial % 20):
                damaged[at] = rng.integers(0, 256)
            file.write_bytes(damaged)
            with contextlib.suppress(ModelError):  # nothing else
                read_contents(file)
        for content in (b"", b"\x3a", b"not a model at all", b"\x08\x07"):
            file.write_bytes(content)
            with pytest.raises(ModelError, match="is no ONNX model"):
                read_contents(file)
        with pytest.raises(ModelError, match="No such file"):
            read_contents(tmp_path / "none.onnx")

    def test_a_model_that_wants_too_much_memory_fails_alone(
        self, tmp_path: Path, sam1: tuple[Path, Path, TorchPredictor]
    ) -> None:
        """A file of some hundred bytes that asks for 64 TiB."""
        helper = onnx.helper
        side = onnx.numpy_helper.from_array(np.array([1, 32, 2**21, 2**18], np.int64), "side")
        nodes = [
            helper.make_node("Expand", ["sum", "side"], ["output"]),
            helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=1),
        ]
        graph = helper.make_graph(
            nodes[::-1], "g", [helper.make_tensor_value_info("image", 1, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("output", 1, [1, 32, 8, 8])], [side],
        )  # fmt: skip
        file = tmp_path / "encoder.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
        signature = try_out(sam1[0], sam1[1], None, None)
        pair = Pair(file, sam1[1], signature, 1, "huge")
        with pytest.raises(EngineFailed, match="memory"):
            pair.encode(np.zeros((1, 3, SIDE, SIDE), np.float32))


def with_weights(folder: Path, location: str) -> Path:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value=location)
    helper = onnx.helper
    node = helper.make_node("Identity", ["w"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [], [tensor])), str(folder / "m.onnx"))
    return folder / "m.onnx"


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory, sam1: tuple[Path, Path, TorchPredictor]) -> Iterator[Home]:
    """A home to which the random pair was added, as ``tiny``."""
    home = Home(tmp_path_factory.mktemp("added"), Config(device="cpu", threads=1))
    add_onnx(home.paths, "tiny", sam1[0], sam1[1], taken=[], licence="MIT", source="a test", terms="Do what you like.")
    yield home
    home.kill()


@pytest.fixture
def tiny(added: Home, tmp_path: Path) -> Shell:
    work = tmp_path / "work"
    work.mkdir()
    return Shell(work, added.environment | {"SEGDUO_DEVICE": "cpu", "SEGDUO_THREADS": "1", "NO_COLOR": "1"})


class TestAdded:
    def test_show_tells_what_was_recorded(self, tiny: Shell, sam1: tuple[Path, Path, TorchPredictor]) -> None:
        shown = tiny.run("models", "show", "tiny", "--json").ok().json
        assert (shown["state"], shown["family"], shown["licence"], shown["source"]) == (
            "added",
            "onnx",
            "MIT",
            "a test",
        )
        assert shown["bytes"] == sum(file.stat().st_size for file in sam1[:2])
        assert shown["terms"] == "Do what you like."
        assert shown["capabilities"] == ["automatic", "box", "mask input", "points"]
        assert (shown["input_size"], len(shown["sha256"])) == (SIDE, 64)

    def test_clicks_automatic_masks_and_the_caches(self, tiny: Shell) -> None:
        tiny.image("discs.png")
        first = tiny.run("embed", "discs.png", "--model", "tiny", "--json").ok().json
        assert first["computed"] is True
        every = ("--points-per-side", "3", "--pred-iou-thresh", "0", "--stability-score-thresh", "0")
        done = tiny.run("auto", "discs.png", "--model", "tiny", *every, "--no-save", "--json").ok().json
        assert done["masks"] > 0
        assert done["model"] == "tiny"
        assert tiny.run("point", "discs.png", "-p", "30,30", "--model", "tiny", "--no-save", "--json").ok().json

    def test_its_embeddings_come_back_from_the_disk(self, through_onnx: OnnxPredictor) -> None:
        segmenter = SamSegmenter(through_onnx, SegmenterInfo("tiny", "", frozenset()))
        embedding = segmenter.embed(picture(90, 140))
        again = segmenter.restore(embedding.to_arrays())
        first, second = (segmenter.predict(one, [points((40, 30))])[0][0] for one in (embedding, again))
        assert first.rle == second.rle
        assert (again.height, again.width) == (90, 140)

    def test_a_name_is_taken_once(self, added: Home, sam1: tuple[Path, Path, TorchPredictor]) -> None:
        for name, said in (("tiny", "there is a model 'tiny' already"), ("../x", "cannot be the name")):
            with pytest.raises(UsageError, match=said):
                add_onnx(added.paths, name, sam1[0], sam1[1], taken=["tiny"])
        with pytest.raises(UsageError, match="there is a folder"):
            add_onnx(added.paths, "tiny", sam1[0], sam1[1], taken=[])
        assert [entry.name for entry in added.paths.models_dir.iterdir()] == ["tiny"]  # nothing half done stays

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--encoder", "E", "--decoder", "E"], "the decoder has no input for the points"),
            (["--encoder", "E"], "--decoder is missing"),
            ([], "give either --encoder and --decoder, or --transformers"),
            (["--transformers", "nobody/nothing"], "is neither a folder nor a model in"),
        ],
    )
    def test_what_cannot_be_added_is_refused_with_exit_code_2(
        self, tiny: Shell, sam1: tuple[Path, Path, TorchPredictor], arguments: list[str], said: str
    ) -> None:
        files = {"E": str(sam1[0]), "D": str(sam1[1])}
        done = tiny.run("models", "add", "other", *(files.get(part, part) for part in arguments))
        assert (done.code, done.stdout) == (2, "")
        assert said in " ".join(done.stderr.split())

    def test_another_licence_is_accepted_first(self, sam1: tuple[Path, Path, TorchPredictor], tmp_path: Path) -> None:
        home = Home(tmp_path / "h")
        add_onnx(home.paths, "research", sam1[0], sam1[1], taken=[], licence="CC-BY-NC-4.0")
        with pytest.raises(ModelError, match="which you have not accepted yet"):
            registry.resolve_model(Config(), home.paths, "research")
        licences.accept(home.paths, "research", "CC-BY-NC-4.0")
        assert registry.resolve_model(Config(), home.paths, "research").family == "onnx"

    def test_a_changed_file_is_not_loaded(self, added: Home, tmp_path: Path) -> None:
        home = Home(tmp_path / "h")
        place = home.paths.models_dir / "tiny"
        shutil.copytree(added.paths.models_dir / "tiny", place)
        choice = registry.resolve_model(Config(), home.paths, "tiny")
        assert plugins.load(choice.family, LoadRequest("tiny", choice.config)).info.licence == "MIT"
        with (place / "decoder.onnx").open("ab") as stream:
            stream.write(b"\0")
        with pytest.raises(ModelError, match="is not the file that was added"):
            plugins.load(choice.family, LoadRequest("tiny", choice.config))
        (place / "encoder.onnx").unlink()
        row = next(m for m in known.known_models(home.paths) if m.id == "tiny")
        assert (row.state, "encoder.onnx is missing" in row.description) == ("damaged", True)

    def test_a_card_that_cannot_be_understood_is_damaged(self, tmp_path: Path) -> None:
        home = Home(tmp_path / "h")
        folder = home.paths.models_dir / "odd"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text('{"family": "onnx", "files": []}')
        row = next(m for m in known.known_models(home.paths) if m.id == "odd")
        assert (row.state, "cannot be understood" in row.description) == ("damaged", True)


def test_a_signature_survives_its_card() -> None:
    signature = Signature(
        layout="sam2", image="i", features=(("a", "b"),), coords="c", labels="l", masks="m", iou="s", low_size=(64, 64)
    )
    assert Signature.model_validate(signature.model_dump(mode="json")) == signature
