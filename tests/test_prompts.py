"""Reading prompts: what is understood, and how precisely the rest is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segment_duo.errors import PromptError
from segment_duo.prompts import check_prompts, parse_box, parse_point, parse_prompts
from segment_duo.types import Box, Point, Prompt

TWO_OBJECTS = [
    Prompt(points=(Point(10, 20, 1), Point(12, 22, 0)), object_id="a"),
    Prompt(points=(Point(30, 40, 1),), object_id="b"),
]


def test_csv_with_a_header_groups_rows_by_object() -> None:
    text = "x,y,label,object\n10,20,1,a\n12,22,0,a\n30,40,1,b\n"
    assert parse_prompts(text, name="f") == TWO_OBJECTS


def test_columns_may_stand_in_any_order_and_comments_are_skipped() -> None:
    text = "# clicks\nobject,y,x\n\na,20,10\n"
    assert parse_prompts(text, name="f") == [Prompt(points=(Point(10, 20),), object_id="a")]


def test_a_number_sign_in_a_name_is_part_of_the_name() -> None:
    text = "  # not an object\nx,y,object\n100,200,grain #3\n300,200,grain #4\n"
    assert [prompt.object_id for prompt in parse_prompts(text, name="f")] == ["grain #3", "grain #4"]
    with pytest.raises(PromptError, match="line 2, column 'y'"):
        parse_prompts("x,y\n1,2 # here\n", name="f")


@pytest.mark.parametrize(
    "text", ["10 20\n30 40 0", "10,20\n30,40,0", "10\t20\r\n30\t40\t0\r\n", "\ufeff10;20\n30;40;0"]
)
def test_plain_text(text: str) -> None:
    assert parse_prompts(text, name="f") == [Prompt(points=(Point(10, 20), Point(30, 40, 0)))]


def test_json_points_objects_and_boxes() -> None:
    assert parse_prompts("[[1, 2], [3, 4, 0]]", name="f") == [Prompt(points=(Point(1, 2), Point(3, 4, 0)))]
    assert parse_prompts('{"points": [[1, 2]], "labels": [0], "box": [0, 0, 5, 6]}', name="f") == [
        Prompt(points=(Point(1, 2, 0),), box=Box(0, 0, 5, 6), object_id="0")
    ]
    assert parse_prompts('[{"x": 1, "y": 2, "object": "a"}, {"x": 3, "y": 4, "object": "a"}]', name="f") == [
        Prompt(points=(Point(1, 2), Point(3, 4)), object_id="a")
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no points"),
        ("\n  \n", "holds no points"),
        ("x,y\n", "holds no points"),
        ("[]", "holds no points"),
        ("x,y\n1,2\n3,nan\n", "line 3, column 'y'"),
        ("x,y\n1,2\noops,4\n", "line 3, column 'x'"),
        ("x,y,label\n1,2,7\n", "line 2, column 'label': unknown label '7'"),
        ("1 2\n3\n", "line 2: 1 fields"),
        ("a,b\n1,2\n", "line 1: no column 'x'"),
        ("x,y,colour\n1,2,3\n", "unknown column 'colour'"),
        ("[[1, 2],\n [3, NaN]]", "clicks.csv, line 2, column 6, item 2: y: 'nan' is not a finite number"),
        ("\n[[1, 2], [3, Infinity]]", "line 2, column 14, item 2: y"),
        ('{"points": [[1, 2], [3, 4]],\n "labels": [1, 5]}', "line 2, column 16, item 1, label 2: unknown label '5'"),
        ('{"objects": [{"box": [1, 2, 3, 4]},\n{"box": [1, 2, "q", 4]}]}', "line 2, column 16, item 2, box, number 3"),
        ('[{"y": 2,\n"x": "q"}]', "line 2, column 6, item 1: x: 'q'"),
        ("[[1, 2], [1]]", "item 2"),
        ('[{"points": [[1, "q"]]}]', "item 1, point 1: y"),
        ('[{"box": [5, 5, 1, 9]}]', "x0 < x1"),
        ('{"points": [[1,2]], "colour": 1}', "unknown key 'colour'"),
        ("[[1, 2", "line 1, column"),
        ("[" * 100_000, "nested too deeply"),
        ("[[true, 2]]", "not a number"),
        ("[[1" + "0" * 5000 + ", 2]]", "clicks.csv"),
        ("[[1" + "0" * 400 + ", 2]]", "not a"),
    ],
)
def test_what_is_no_prompt_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompts(text, name="clicks.csv")
    assert complaint in caught.value.message
    assert "clicks.csv" in caught.value.message


def test_points_outside_the_image_are_refused_with_their_place() -> None:
    with pytest.raises(PromptError, match=r"clicks.csv, line 3, column 'y': 80 is outside the image"):
        parse_prompts("x,y\n1,2\n99,80\n", name="clicks.csv", within=(100, 80))
    with pytest.raises(PromptError, match=r"clicks.json, line 1, column 11, item 2: x: -1 is outside the image"):
        parse_prompts("[[1, 2], [-1, 2]]", name="clicks.json", within=(100, 80))
    boxes = '[{"box": [0, 0, 100, 80]},\n {"box": [0, 0, 101, 5]}]'
    with pytest.raises(
        PromptError, match=r"clicks.json, line 2, column 10, item 2, box: 0,0,101,5 is not inside the im"
    ):
        parse_prompts(boxes, name="clicks.json", within=(100, 80))


def test_arguments() -> None:
    assert parse_point("120, 88") == Point(120, 88, 1)
    assert parse_point("1.5,2,exclude") == Point(1.5, 2, 0)
    assert parse_box("1,2,3,4") == Box(1, 2, 3, 4)
    for wrong in ("1", "1,2,3,4", "a,2", "1,inf"):
        with pytest.raises(PromptError):
            parse_point(wrong)
    for wrong in ("1,2,3", "3,3,1,1", "1,2,nan,4"):
        with pytest.raises(PromptError):
            parse_box(wrong)


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        (Prompt(points=(Point(100, 5),)), "outside the image"),
        (Prompt(points=(Point(-0.5, 5),)), "outside the image"),
        (Prompt(points=(Point(5, 75),)), "on the info banner"),
        (Prompt(box=Box(0, 0, 101, 5)), "not inside the image"),
        (Prompt(box=Box(0, 0, 10, 75)), "not inside the image"),
        (Prompt(), "neither a point nor a box"),
        (
            Prompt(points=(Point(3, 4, 0), Point(5, 5, 0)), object_id="a"),
            "object a: a prompt of excludes alone asks for nothing",
        ),
    ],
)
def test_prompts_must_lie_on_the_image(prompt: Prompt, complaint: str) -> None:
    with pytest.raises(PromptError, match=complaint):
        check_prompts([prompt], width=100, height=80, banner=10)


def test_the_whole_image_is_allowed() -> None:
    check_prompts(
        [Prompt(points=(Point(0, 0), Point(99.9, 69.9)), box=Box(0, 0, 100, 70))], width=100, height=80, banner=10
    )


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from([0, 1]), st.sampled_from("abc")),
        min_size=1,
        max_size=20,
    )
)
def test_csv_and_json_mean_the_same(rows: list[tuple[float, float, int, str]]) -> None:
    csv_text = "x,y,label,object\n" + "".join(f"{x!r},{y!r},{label},{name}\n" for x, y, label, name in rows)
    json_text = json.dumps([{"x": x, "y": y, "label": label, "object": name} for x, y, label, name in rows])
    assert parse_prompts(csv_text, name="f") == parse_prompts(json_text, name="f")


def test_excludes_correct_a_box_or_a_mask() -> None:
    out = (Point(3, 4, 0),)
    check_prompts([Prompt(points=out, box=Box(0, 0, 9, 9)), Prompt(points=out, mask_input="h1")], width=20, height=20)
