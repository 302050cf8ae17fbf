"""Names and numbers of mask sets."""

from __future__ import annotations

import os
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segment_duo.config import Config
from segment_duo.errors import AlreadyExists, InputError, NotFound, StoreError, UsageError
from segment_duo.library import versions
from segment_duo.library.versions import (
    VersionRequest,
    check_suffix,
    is_version_name,
    list_series,
    list_versions,
    masks_folder,
    order_versions,
    parse_version_name,
    save_version,
    split_version,
    stems_with_sets,
    version_file_name,
    version_name,
)
from segment_duo.stores.local import LocalStore
from segment_duo.types import Entry, ImageRef, StoreKind

# Other work on the machine must neither fail these tests nor be held up by them.
busy_machine = settings(deadline=None, max_examples=60)

stems = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..")
)
parts = st.text(string.ascii_letters + "éü電µ", min_size=1, max_size=6)
suffixes = st.one_of(
    st.just(""),
    st.builds(lambda words, mark: mark.join(words), st.lists(parts, min_size=1, max_size=3), st.sampled_from("_-")),
).filter(lambda text: text != "latest")
numbers = st.integers(0, 999_999_999)


def entry(name: str, modified: float = 0.0, size: int = 1) -> Entry:
    return Entry(name, f"/masks/{name}", False, size, modified)


@busy_machine
@given(stems, suffixes, numbers)
def test_a_name_that_is_made_is_understood(stem: str, suffix: str, number: int) -> None:
    name = version_file_name(stem, suffix, number)
    assert parse_version_name(name, stem) == (suffix, number)
    assert is_version_name(version_name(suffix, number))
    assert split_version(f"{stem}.tif@{version_name(suffix, number)}") == (
        f"{stem}.tif",
        VersionRequest(version_name(suffix, number)),
    )


@busy_machine
@given(stems, suffixes, numbers, suffixes, numbers)
def test_different_versions_have_different_names(stem: str, suffix: str, number: int, other: str, second: int) -> None:
    same = (suffix, number) == (other, second)
    assert (version_file_name(stem, suffix, number) == version_file_name(stem, other, second)) is same
    assert (version_name(suffix, number) == version_name(other, second)) is same


@busy_machine
@given(stems, st.text(max_size=30))
def test_what_is_understood_can_be_made_again(stem: str, rest: str) -> None:
    parsed = parse_version_name(f"{stem}{rest}.pkl", stem)
    if parsed:
        made = version_file_name(unicodedata.normalize("NFC", stem), *parsed)
        assert made == unicodedata.normalize("NFC", f"{stem}{rest}.pkl")


@busy_machine
@given(st.text(max_size=80))
def test_a_suffix_is_refused_or_keeps_names_unambiguous(text: str) -> None:
    try:
        suffix = check_suffix(text)
    except UsageError:
        return
    assert parse_version_name(version_file_name("image", suffix, 0), "image") == (suffix, 0)
    assert parse_version_name(version_file_name("image", suffix, 7), "image") == (suffix, 7)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.pkl", ("", 0)),
        ("a_1.pkl", ("", 1)),
        ("a_12.pkl", ("", 12)),
        ("a_grain.pkl", ("grain", 0)),
        ("a_grain_3.pkl", ("grain", 3)),
        ("a_large_pores_3.pkl", ("large_pores", 3)),
        ("a_v2.pkl", ("v2", 0)),
        ("a_0.pkl", None),
        ("a_01.pkl", None),
        ("a_grain_0.pkl", None),
        ("a_grain_01.pkl", None),
        ("a_1234567890.pkl", None),
        ("a_.pkl", None),
        ("a__1.pkl", None),
        ("a_-x.pkl", None),
        ("a_latest.pkl", None),
        ("a_x.y.pkl", None),
        ("a_x y.pkl", None),
        ("ab.pkl", None),
        ("a.tif", None),
        ("a.PKL", None),
        ("a.pk", None),
        (".pkl", None),
        ("b_a.pkl", None),
    ],
)
def test_names(name: str, expected: tuple[str, int] | None) -> None:
    assert parse_version_name(name, "a") == expected


def test_a_stem_that_ends_like_the_extension() -> None:
    assert parse_version_name("a.pkl", "a.pkl") is None
    assert parse_version_name("a.pkl.pkl", "a.pkl") == ("", 0)


def test_names_stored_decomposed_are_the_same_names() -> None:
    decomposed = unicodedata.normalize("NFD", "grün_körner_1.pkl")
    assert parse_version_name(decomposed, "grün") == ("körner", 1)
    assert check_suffix(unicodedata.normalize("NFD", "körner")) == "körner"
    assert stems_with_sets([entry(decomposed)], ["grün"]) == {"grün"}


@pytest.mark.parametrize(
    "suffix",
    ["1", "grain_1", "grain_01", "٣", "latest", "_a", "a_", "-a", "a-", "a b", "a/b", "a\\b", "a.b", "a@b", "..", "a\n", "x" * 65, "\x1b[31m", "[b]"],
)  # fmt: skip
def test_suffixes_that_are_refused(suffix: str) -> None:
    with pytest.raises(UsageError, match="suffix"):
        check_suffix(suffix)
    with pytest.raises(UsageError):
        version_file_name("a", suffix)


@pytest.mark.parametrize(
    "suffix", ["", "grain", "large-pores", "large_pores", "v2", "2nd", "Körner", "電池", "नमस्ते", "x" * 64]
)
def test_suffixes_that_are_accepted(suffix: str) -> None:
    assert check_suffix(suffix) == suffix


@pytest.mark.parametrize(
    ("text", "head", "name"),
    [
        ("a.tif", "a.tif", None),
        ("a.tif@2", "a.tif", "2"),
        ("a.tif@0", "a.tif", "0"),
        ("a.tif@grain_1", "a.tif", "grain_1"),
        ("a.tif@latest", "a.tif", None),
        ("a@b.tif", "a@b.tif", None),
        ("me@lab/a.tif", "me@lab/a.tif", None),
        ("a.tif@", "a.tif@", None),
        ("@2", "@2", None),
        ("/drops/a@1/x.tif@3", "/drops/a@1/x.tif", "3"),
        ("a.tif@00", "a.tif@00", None),
    ],
)
def test_versions_behind_an_at_sign(text: str, head: str, name: str | None) -> None:
    assert split_version(text) == (head, VersionRequest(name))


def test_requests() -> None:
    saved = order_versions([entry("a.pkl", 1), entry("a_1.pkl", 2), entry("a_grain.pkl", 3)], "a")
    assert [version.name for version in VersionRequest.parse(None).candidates(saved, "a.tif")] == ["grain", "1", "0"]
    assert VersionRequest.parse("@grain_1") == VersionRequest("grain_1")
    assert [version.path for version in VersionRequest.parse("1").candidates(saved, "a.tif")] == ["/masks/a_1.pkl"]
    with pytest.raises(NotFound, match="no version '7'") as caught:
        VersionRequest.parse("7").candidates(saved, "a.tif")
    assert "grain, 1, 0" in caught.value.hint
    with pytest.raises(NotFound, match=r"a\.tif: no saved masks"):
        VersionRequest().candidates([], "a.tif")
    for text in ("01", "a.b", "-1", "grain_", "../x"):
        with pytest.raises(UsageError):
            VersionRequest.parse(text)


def test_newest_first_and_numbers_beat_copied_times() -> None:
    entries = [
        entry("a.pkl", 50),
        entry("a_1.pkl", 20),  # copied without its time: still newer than a.pkl
        entry("a_2.pkl", 50),
        entry("a_grain.pkl", 60),
        entry("a_grain_1.pkl", 40),
        entry("b.pkl", 99),
        Entry("a_3.pkl", "/masks/a_3.pkl", True, 0, 99),
    ]
    assert [version.name for version in order_versions(entries, "a")] == ["grain_1", "grain", "2", "1", "0"]
    assert [version.modified for version in order_versions(entries, "a")] == [40, 60, 50, 20, 50]


@busy_machine
@given(st.lists(st.tuples(suffixes, st.integers(0, 50), st.floats(0, 1e9)), unique_by=lambda item: item[:2]))
def test_order_is_total_and_keeps_each_series_in_order(items: list[tuple[str, int, float]]) -> None:
    entries = [entry(version_file_name("a", suffix, number), modified) for suffix, number, modified in items]
    ordered = order_versions(entries, "a")
    assert ordered == order_versions(entries[::-1], "a")
    assert len(ordered) == len(items)
    for suffix in {suffix for suffix, _, _ in items}:
        series = [version.number for version in ordered if version.suffix == suffix]
        assert series == sorted(series, reverse=True)


@pytest.mark.parametrize(
    ("numbers", "suffix", "expected"),
    [
        ([], "", "0"),
        ([0], "", "1"),
        ([0, 1, 5], "", "6"),  # gaps of removed versions are not filled, so the highest stays the newest
        (range(250), "", "250"),
        ([100], "", "101"),
        ([0, 101], "", "102"),
        ([0, 102], "", "1"),
        ([0, 2024], "", "1"),  # scan_2024.tif beside scan.tif
        ([2024], "", "0"),
        ([3, 4], "grain", "0"),
    ],
)
def test_the_next_number(tmp_path: Path, numbers: list[int], suffix: str, expected: str) -> None:
    for number in numbers:
        (tmp_path / version_file_name("a", suffix, number)).touch()
    assert save_version(LocalStore(), str(tmp_path), "a", "", b"x").name == expected


def test_a_series_has_its_own_versions_newest_first(tmp_path: Path) -> None:
    store = LocalStore()
    for name in (
        "a.pkl",
        "a_1.pkl",
        "a_1_1.pkl",
        "a_grain.pkl",
        "a_grain_7.pkl",
        "a_grain_200.pkl",
        "b.pkl",
        "a_grain_01.pkl",
    ):
        (tmp_path / name).touch()
    (tmp_path / "a_grain_2.pkl").mkdir()
    (tmp_path / "a_grain_3.pkl").symlink_to("nowhere")

    def series(suffix: str) -> list[str]:
        return [version.name for version in list_series(store, str(tmp_path), "a", suffix)]

    assert series("") == ["1", "0"]
    assert series("grain") == ["grain_7", "grain_3", "grain"]
    assert series("fine") == list_series(store, f"{tmp_path}/none", "a", "") == []
    assert save_version(store, str(tmp_path), "a", "grain", b"x").name == "grain_8"
    with pytest.raises(InputError):
        list_series(store, f"{tmp_path}/b.pkl", "a", "")


def test_names_stored_in_another_unicode_form_count(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "é_4.pkl")).touch()
    assert save_version(LocalStore(), str(tmp_path), "é", "", b"x").name == "5"


def test_a_folder_is_not_looked_through_for_each_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: [looked.append(folder), scan(folder)][1])
    monkeypatch.setattr(os, "listdir", looked.append)
    store = LocalStore()
    for stem in ("a", "b", "c", "a"):
        save_version(store, f"{tmp_path}/masks", stem, "", b"x")
    assert looked == [tmp_path / "masks"]  # once, for what killed processes left
    assert sorted(path.name for path in (tmp_path / "masks").glob("*")) == ["a.pkl", "a_1.pkl", "b.pkl", "c.pkl"]


def test_images_whose_names_contain_each_other_do_not_take_each_others_sets(tmp_path: Path) -> None:
    store, folder = LocalStore(), str(tmp_path)
    saved = [
        save_version(store, folder, stem, suffix, f"{stem} {suffix} {round_}".encode())
        for round_ in range(2)
        for stem, suffix in (("a", ""), ("a_1", ""), ("a", "grain"), ("a_grain", ""), ("a_1", "grain"))
    ]
    contents = {version.path: Path(version.path).read_text() for version in saved}
    assert len(contents) == 10
    assert {text for path, text in contents.items()} == {
        f"{stem} {suffix} {round_}"
        for round_ in range(2)
        for stem, suffix in (("a", ""), ("a_1", ""), ("a", "grain"), ("a_grain", ""), ("a_1", "grain"))
    }
    # Whatever was saved for an image is among the candidates for that image.
    for version in saved:
        stem = contents[version.path].split(" ")[0]
        assert version.path in {candidate.path for candidate in list_versions(store, folder, stem)}


def test_saving_takes_the_next_number_of_its_series(tmp_path: Path) -> None:
    store, folder = LocalStore(), f"{tmp_path}/masks"
    names = [save_version(store, folder, "p", suffix, b"x").name for suffix in ("", "", "grain", "grain", "")]
    assert names == ["0", "1", "grain", "grain_1", "2"]
    assert sorted(path.name for path in Path(folder).iterdir()) == [
        "p.pkl", "p_1.pkl", "p_2.pkl", "p_grain.pkl", "p_grain_1.pkl",
    ]  # fmt: skip
    assert {version.name for version in list_versions(store, folder, "p")} == set(names)
    with pytest.raises(UsageError):
        save_version(store, folder, "p", "grain_1", b"x")


def test_images_with_hidden_names_keep_their_versions(tmp_path: Path) -> None:
    store = LocalStore()
    for _ in range(3):
        save_version(store, str(tmp_path), ".scan", "", b"x")
    assert [version.name for version in list_versions(store, str(tmp_path), ".scan")] == ["2", "1", "0"]


def test_saving_gives_up_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MAX_ATTEMPTS", 3)
    store, tried = LocalStore(), []

    def taken(path: str, data: bytes) -> None:
        tried.append(path)
        raise AlreadyExists(path)

    monkeypatch.setattr(store, "create", taken)
    with pytest.raises(StoreError, match="no free version number"):
        save_version(store, str(tmp_path), "a", "", b"x")
    assert tried == [f"{tmp_path}/a.pkl", f"{tmp_path}/a_1.pkl", f"{tmp_path}/a_2.pkl"]


def test_which_images_have_sets() -> None:
    listing = [entry(name) for name in ("a.pkl", "b_1.pkl", "c_x_2.pkl", "d_01.pkl", "e.tif", "longer.pkl")]
    assert stems_with_sets(listing, ["a", "b", "b_1", "c", "c_x", "d", "d_01", "e", "long"]) == {
        "a", "b", "b_1", "c", "c_x", "d_01",
    }  # fmt: skip


@busy_machine
@given(st.lists(stems, max_size=5), st.lists(st.tuples(stems, suffixes, st.integers(0, 9)), max_size=5))
def test_marks_agree_with_the_versions_that_are_found(wanted: list[str], saved: list[tuple[str, str, int]]) -> None:
    listing = [entry(version_file_name(*item)) for item in saved]
    assert stems_with_sets(listing, wanted) == {stem for stem in wanted if order_versions(listing, stem)}


def test_where_sets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    image = ImageRef(StoreKind.LOCAL, "/data/day 1/a.tif")
    assert masks_folder(image, Config()) == (StoreKind.LOCAL, "/data/day 1/masks")
    assert masks_folder(image, Config(local_masks_dir="/all/masks")) == (StoreKind.LOCAL, "/all/masks")
    assert masks_folder(image, Config(local_masks_dir="~/masks")) == (StoreKind.LOCAL, "/home/ann/masks")
    assert masks_folder(image, Config(local_masks_dir="../masks")) == (StoreKind.LOCAL, "/data/masks")
    remote = ImageRef(StoreKind.DROPS, "/labdaq/a.tif")
    assert masks_folder(remote, Config()) == (StoreKind.DROPS, "/labdaq/masks")
    for root in ("/matthieu/masks/", "/drops/matthieu/masks", "drops:/matthieu//masks"):
        assert masks_folder(remote, Config(masks_root=root)) == (StoreKind.DROPS, "/matthieu/masks")
