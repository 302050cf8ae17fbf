"""Object stores: a real S3 endpoint (moto's server) on loopback, healthy and behind a proxy that spoils answers."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.response import StreamingBody
from moto.server import ThreadedMotoServer
from urllib3.exceptions import ReadTimeoutError

from segment_duo.errors import AlreadyExists, InputError, NotFound, S3Denied, S3Refused, S3Unavailable, UsageError
from segment_duo.library.versions import save_version
from segment_duo.stores.cache import ContentCache
from segment_duo.stores.locate import parse_reference
from segment_duo.stores.s3 import S3Store
from segment_duo.stores.transport import Patience
from segment_duo.types import ImageRef, StoreKind
from tests.batches.conftest import toy  # noqa: F401
from tests.batches.toy import ToyShell

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDOFSOMEBODY", "AWS_SECRET_ACCESS_KEY": "very-secret", "AWS_REGION": "us-east-1"}
QUICK = Patience(connect_seconds=5, read_seconds=30, answer_seconds=60, attempts=2)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    finally:
        server.stop()


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> str:
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    client(endpoint).create_bucket(Bucket=name)
    return name


def client(url: str) -> Any:
    return boto3.session.Session(
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"], region_name="us-east-1"
    ).client(
        "s3", endpoint_url=url, config=Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 1, "mode": "standard"})
    )  # fmt: skip


def store(url: str, cache: ContentCache | None = None) -> S3Store:
    return S3Store(cache, patience=QUICK, make_client=lambda _: client(url))


def test_a_prefix_is_a_folder(endpoint: str, bucket: str) -> None:
    s3 = store(endpoint)
    for key in ("a.tif", "sub/b.tif", "sub/deep/c.tif", ".hidden"):
        s3.create(f"/{bucket}/{key}", key.encode())
    assert {(entry.name, entry.is_folder) for entry in s3.list(f"/{bucket}")} == {("a.tif", False), ("sub", True)}
    assert [entry.path for entry in s3.glob(f"/{bucket}/**/*.tif")] == [
        f"/{bucket}/a.tif",
        f"/{bucket}/sub/b.tif",
        f"/{bucket}/sub/deep/c.tif",
    ]
    assert s3.read(f"/{bucket}/sub/b.tif") == b"sub/b.tif"
    found = s3.stat(f"/{bucket}/sub")
    assert found is not None
    assert found.is_folder
    assert s3.stat(f"/{bucket}/su") is None
    for wrong, error in {"su": NotFound, "a.tif": InputError}.items():
        with pytest.raises(error):
            s3.list(f"/{bucket}/{wrong}")
    for wrong, error in {"nothing.tif": NotFound, "sub": InputError}.items():
        with pytest.raises(error):
            s3.read(f"/{bucket}/{wrong}")
    with pytest.raises(NotFound, match="no such bucket"):
        s3.list("/another-bucket")
    with pytest.raises(InputError, match="9 bytes"):
        s3.read(f"/{bucket}/sub/b.tif", max_bytes=8)


def test_a_place_is_typed_and_shown_as_everywhere() -> None:
    ref = parse_reference("s3://bucket/a//b/*.tif", cwd=Path("/"))
    assert (ref, str(ref)) == (ImageRef(StoreKind.S3, "/bucket/a/b/*.tif"), "s3://bucket/a/b/*.tif")
    with pytest.raises(UsageError):
        parse_reference("s3://bucket/../other", cwd=Path("/"))


def test_of_two_writers_of_a_name_one_wins_and_the_other_gets_the_next(endpoint: str, bucket: str) -> None:
    start = threading.Barrier(4)
    names: list[str] = []

    def write(number: int) -> None:
        s3 = store(endpoint)
        start.wait()
        names.append(save_version(s3, f"/{bucket}/masks", "a", "", f"set {number}".encode()).name)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(names) == ["0", "1", "2", "3"]
    held = {store(endpoint).read(entry.path) for entry in store(endpoint).list(f"/{bucket}/masks")}
    assert held == {f"set {number}".encode() for number in range(4)}
    with pytest.raises(AlreadyExists):
        store(endpoint).create(f"/{bucket}/masks/a.pkl", b"other")


def test_of_a_full_prefix_only_the_names_of_a_series_are_asked_for(endpoint: str, bucket: str) -> None:
    s3 = store(endpoint)
    for key in ("a.pkl", "a_4.pkl", "a_200.pkl", "b.pkl", "b_1.pkl", "ab.pkl"):
        s3.create(f"/{bucket}/masks/{key}", b"old")
    asked = client(endpoint)
    prefixes: list[str] = []
    asked.meta.events.register(
        "provide-client-params.s3.ListObjectsV2", lambda params, **_: prefixes.append(params["Prefix"])
    )
    s3 = S3Store(patience=QUICK, make_client=lambda _: asked)
    assert save_version(s3, f"/{bucket}/masks", "a", "", b"new").name == "5"
    assert save_version(s3, f"/{bucket}/masks", "b", "grain", b"new").name == "grain"
    assert set(prefixes) == {"masks/a", "masks/a_", "masks/b_grain"}
    assert s3.find("/no-such-bucket/masks", ["a.pkl"]) == []


class Spoilt:
    """A client of the real endpoint that spoils answers where boto3 hands them over."""

    def __init__(self, url: str, spoil: Callable[[bytes], Any] | None = None, *, times: int = 99) -> None:
        self._real, self._spoil, self._times = client(url), spoil, times
        self.meta = self._real.meta
        self.head_object = self._real.head_object
        self.read = 0

    def put_object(self, **arguments: Any) -> Any:
        """As boto3 when the answer of its first attempt was lost: it sends the object again."""
        self._real.put_object(**arguments)
        return self._real.put_object(**arguments)

    def get_object(self, **arguments: Any) -> Any:
        self.read += 1
        answer = self._real.get_object(**arguments)
        if self._spoil is None or self.read > self._times:
            return answer
        content = answer["Body"].read()
        return answer | {"Body": StreamingBody(self._spoil(content), len(content))}


class Stalled(io.RawIOBase):
    """A connection that gives a few bytes and then nothing."""

    def read(self, size: int = -1) -> bytes:
        raise ReadTimeoutError(None, None, "nothing came")  # type: ignore[arg-type]


def test_an_upload_whose_answer_was_lost_is_found_to_have_arrived(endpoint: str, bucket: str) -> None:
    S3Store(patience=QUICK, make_client=lambda _: Spoilt(endpoint)).create(f"/{bucket}/a.pkl", b"the set")
    assert store(endpoint).read(f"/{bucket}/a.pkl") == b"the set"
    with pytest.raises(AlreadyExists):
        S3Store(patience=QUICK, make_client=lambda _: Spoilt(endpoint)).create(f"/{bucket}/a.pkl", b"another")
    assert store(endpoint).read(f"/{bucket}/a.pkl") == b"the set"


@pytest.mark.parametrize(
    "spoil", [lambda content: io.BytesIO(content[:2000]), lambda _: Stalled()], ids=["cut", "stalled"]
)
def test_a_spoilt_answer_is_asked_for_again_and_then_named(endpoint: str, bucket: str, spoil: Any) -> None:
    content = bytes(range(256)) * 64
    store(endpoint).create(f"/{bucket}/a.tif", content)
    once = Spoilt(endpoint, spoil, times=1)
    assert S3Store(patience=QUICK, make_client=lambda _: once).read(f"/{bucket}/a.tif") == content
    assert once.read == 2
    with pytest.raises(S3Unavailable) as told:
        S3Store(patience=QUICK, make_client=lambda _: Spoilt(endpoint, spoil)).read(f"/{bucket}/a.tif")
    assert f"s3://{bucket}/a.tif" in told.value.message


def test_content_is_kept_and_a_changed_object_is_read_anew(endpoint: str, bucket: str, tmp_path: Path) -> None:
    counting = Spoilt(endpoint)
    s3 = S3Store(ContentCache(tmp_path / "cache", 1 << 20), patience=QUICK, make_client=lambda _: counting)
    store(endpoint).create(f"/{bucket}/a.tif", b"first")
    assert [s3.read(f"/{bucket}/a.tif") for _ in range(2)] == [b"first", b"first"]
    assert counting.read == 1
    client(endpoint).put_object(Bucket=bucket, Key="a.tif", Body=b"changed")
    assert s3.read(f"/{bucket}/a.tif") == b"changed"


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, S3Denied), ("InvalidAccessKeyId", 403, S3Denied), ("", 403, S3Denied), ("SlowDown", 503, S3Unavailable),
        ("InternalError", 500, S3Unavailable), ("NotImplemented", 501, S3Refused), ("PermanentRedirect", 301, S3Refused),
    ],
)  # fmt: skip
def test_refusals_are_told_in_our_words(code: str, status: int, error: type[Exception]) -> None:
    from botocore.exceptions import ClientError

    class Refusing:
        def put_object(self, **_: object) -> None:
            secret = {"Code": code, "Message": f"the key {KEYS['AWS_ACCESS_KEY_ID']} is wrong"}
            raise ClientError({"Error": secret, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")

    with pytest.raises(error) as told:
        S3Store(make_client=lambda _: Refusing()).create("/bucket/a.pkl", b"x")
    assert "s3://bucket/a.pkl" in str(told.value)
    assert KEYS["AWS_ACCESS_KEY_ID"] not in str(told.value)


def test_nobody_there_and_no_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(S3Unavailable, match="cannot be reached"):
        store("http://127.0.0.1:9").read("/bucket/a.tif")
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(S3Denied, match="no credentials"):
        S3Store(patience=QUICK).read("/bucket/a.tif")


def test_auto_on_a_prefix(toy: ToyShell, endpoint: str, bucket: str) -> None:  # noqa: F811
    s3 = client(endpoint)
    for name in ("a.png", "b.png"):
        s3.put_object(Bucket=bucket, Key=f"run/{name}", Body=toy.draw(name).read_bytes())
    s3.put_object(Bucket=bucket, Key="run/bad.png", Body=b"no picture")
    toy.environment |= KEYS | {"AWS_ENDPOINT_URL": endpoint}
    done = toy.run("auto", f"s3://{bucket}/run/*.png", "--manifest", "m")
    assert done.code == 8, done.stderr
    assert done.lines == [f"s3://{bucket}/run/masks/{name}.pkl" for name in ("a", "b")]
    assert "very-secret" not in done.stderr + "".join(file.read_text() for file in (toy.folder / "m").iterdir())
    shown = toy.run("masks", "show", f"s3://{bucket}/run/a.png", "--json").ok().json
    assert (shown["masks"], shown["provenance"]["image"]["path"]) == (1, f"s3://{bucket}/run/a.png")
