"""An S3 store that breaks off, is overloaded, damages bytes, hangs or dribbles.

In the end there are the right bytes or a coded error, in bounded time, and never a blob that is not whole.
"""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from registry.blobs.bucket import S3Credentials, S3Patience, S3Place
from registry.blobs.errors import BlobsUnavailable
from registry.blobs.multipart import PART
from registry.blobs.s3 import S3Blobs
from registry.blobs.s3_shelf import S3Shelf
from registry.digests import Digest
from registry.errors import BlobCorrupt, BlobNotFound, InvalidInput
from registry.ports import Leftovers
from tests.support.s3 import CREDENTIALS, S3Server, aged, keys, raw, through
from tests.support.s3_faults import Front, front

DATA = bytes(range(256)) * 1000
DIGEST = Digest.of(DATA)
LARGE = DATA * (PART // len(DATA) + 2)
BIG = Digest.of(LARGE)
KEY = f"sha256/{DIGEST.hex[:2]}/{DIGEST.hex}"
IMPATIENT = S3Patience(connect=5, read=10, attempts=3, pause=0.01)
HASTY = replace(IMPATIENT, read=0.4)
"""For servers that never answer; a busy machine needs more for those that do."""
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def place(s3: S3Server) -> S3Place:
    return s3.place()


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[Front]:
    with front(s3.endpoint) as found:
        yield found


@pytest.fixture
def blobs(place: S3Place, proxy: Front, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    # botocore waits up to 2 seconds, by chance, before it tries again.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    return S3Blobs(through(place, proxy.endpoint), patience=IMPATIENT, sleep=lambda _: None)


def put(blobs: S3Blobs, data: bytes = DATA, expect: Digest | None = None) -> tuple[Digest, int]:
    return blobs.put(io.BytesIO(data), expect=expect)


@pytest.mark.parametrize("fault", ["reset", "500", "503"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_one_failure_is_nothing(
    blobs: S3Blobs, place: S3Place, proxy: Front, method: str, fault: str
) -> None:
    proxy.faults.append((method, "sha256", fault))
    assert put(blobs) == (DIGEST, len(DATA))
    assert blobs.read(DIGEST) == DATA
    assert blobs.has(DIGEST)
    assert proxy.faults == []
    assert keys(place) == [KEY]


@pytest.mark.parametrize("fault", ["reset", "500", "503", "403"])
def test_failures_that_stay_are_one_coded_error(
    blobs: S3Blobs, place: S3Place, proxy: Front, fault: str
) -> None:
    for method in ("PUT", "GET", "HEAD"):
        proxy.faults.append((method, "sha256", f"*{fault}"))
    calls: list[Callable[[], object]] = [
        lambda: put(blobs),
        lambda: blobs.read(DIGEST),
        lambda: blobs.has(DIGEST),
        lambda: list(blobs.digests()),
    ]
    for call in calls:
        with pytest.raises(BlobsUnavailable) as raised:
            call()
        assert (raised.value.code, raised.value.status) == ("blobs_unavailable", 503)
        assert place.bucket not in raised.value.message
        assert proxy.endpoint not in raised.value.message
    assert keys(place) == []
    assert proxy.count("PUT") <= IMPATIENT.attempts


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_store_that_never_answers(place: S3Place, proxy: Front, method: str) -> None:
    hasty = S3Blobs(through(place, proxy.endpoint), patience=HASTY)
    proxy.faults.append((method, "sha256", "*hang"))
    started = time.monotonic()
    with pytest.raises(BlobsUnavailable, match="ReadTimeoutError"):
        put(hasty) if method == "PUT" else hasty.read(DIGEST)
    assert time.monotonic() - started < 20
    assert proxy.count(method) == HASTY.attempts


def test_an_answer_that_gets_lost_is_no_second_blob(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    """The repetition finds what the first attempt wrote, by 412."""
    proxy.faults.append(("PUT", "sha256", "lost"))
    assert put(blobs) == (DIGEST, len(DATA))
    assert keys(place) == [KEY]


@pytest.mark.parametrize("fault", ["unconditional", "ignorant"])
def test_a_store_without_conditional_writes(blobs: S3Blobs, place: S3Place, proxy: Front, fault: str) -> None:
    proxy.faults.append(("PUT", "sha256", f"*{fault}"))
    assert put(blobs) == put(blobs) == (DIGEST, len(DATA))
    assert blobs.read(DIGEST) == DATA
    assert keys(place) == [KEY]


def test_two_at_once_are_told_409_and_both_succeed(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    proxy.faults.append(("PUT", "sha256", "409"))
    assert put(blobs) == (DIGEST, len(DATA))
    assert blobs.read(DIGEST) == DATA


def test_bytes_damaged_on_the_way_are_refused(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    proxy.faults.append(("PUT", "sha256", "*flip"))
    with pytest.raises(BlobsUnavailable, match="damaged on the way"):
        put(blobs)
    with pytest.raises(BlobsUnavailable):
        put(blobs, LARGE)
    assert keys(place) == []


def test_a_body_that_breaks_off_goes_on_where_it_broke(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    put(blobs)
    proxy.faults += [("GET", "sha256", "truncate"), ("GET", "sha256", "truncate")]
    assert blobs.read(DIGEST) == DATA
    assert proxy.count("GET") == 3
    proxy.faults.append(("GET", "sha256", "truncate"))
    with blobs.open_unchecked(DIGEST, start=1000, size=100_000) as stream:
        assert stream.read() == DATA[1000:101_000]


def test_a_body_that_always_breaks_off(blobs: S3Blobs, proxy: Front) -> None:
    put(blobs)
    proxy.faults.append(("GET", "sha256", "*truncate"))
    with pytest.raises(BlobsUnavailable, match="breaks off"):
        blobs.read(DIGEST)
    assert proxy.count("GET") == IMPATIENT.attempts


def test_wrong_bytes_are_noticed(blobs: S3Blobs, proxy: Front) -> None:
    put(blobs)
    proxy.faults.append(("GET", "sha256", "wrong"))
    with pytest.raises(BlobCorrupt):
        blobs.read(DIGEST)
    assert blobs.read(DIGEST) == DATA


def test_a_store_that_sends_a_byte_now_and_then(place: S3Place, proxy: Front) -> None:
    """No pause is as long as the timeout, and all of it would take 85 minutes."""
    put(S3Blobs(place))
    blobs = S3Blobs(through(place, proxy.endpoint), patience=HASTY)
    proxy.faults.append(("GET", "sha256", "*dribble"))
    started = time.monotonic()
    with pytest.raises(BlobsUnavailable, match="too slowly"):
        blobs.read(DIGEST)
    assert time.monotonic() - started < 10


def test_a_large_blob_that_fails_half_way_leaves_nothing(
    blobs: S3Blobs, place: S3Place, proxy: Front
) -> None:
    proxy.faults.append(("PUT", "partNumber=2", "*500"))
    for expect in (BIG, None):
        with pytest.raises(BlobsUnavailable):
            put(blobs, LARGE, expect)
    assert keys(place) == []
    assert blobs.leftovers(before=FUTURE, delete=False) == Leftovers(0, 0)
    proxy.faults.clear()
    assert put(blobs, LARGE, BIG) == (BIG, len(LARGE))


def test_what_cannot_be_aborted_is_found_later(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    proxy.faults += [("PUT", "partNumber=2", "*500"), ("DELETE", "uploadId", "*500")]
    with pytest.raises(BlobsUnavailable):
        put(blobs, LARGE, BIG)
    proxy.faults.clear()
    found = blobs.leftovers(before=FUTURE, delete=True)
    assert (found.count, found.size) == (1, PART)
    assert blobs.leftovers(before=FUTURE, delete=True) == Leftovers(0, 0)
    assert keys(place) == []


def test_a_completion_whose_answer_gets_lost(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    proxy.faults.append(("POST", "uploadId", "lost"))
    assert put(blobs, LARGE, BIG) == (BIG, len(LARGE))
    assert blobs.read(BIG) == LARGE
    assert blobs.leftovers(before=FUTURE, delete=False) == Leftovers(0, 0)


@pytest.mark.parametrize("large", [False, True])
def test_a_sender_that_breaks_off_leaves_nothing(blobs: S3Blobs, place: S3Place, large: bool) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if data := super().read(size):
                return data
            raise ConnectionResetError("the client went away")

    for expect in (BIG, None):
        with pytest.raises(ConnectionResetError):
            blobs.put(Broken(LARGE if large else DATA), expect=expect)
    assert keys(place) == []
    assert blobs.leftovers(before=FUTURE, delete=False) == Leftovers(0, 0)


def test_no_bucket_is_no_empty_store(blobs: S3Blobs, place: S3Place, proxy: Front) -> None:
    nowhere = S3Blobs(replace(through(place, proxy.endpoint), bucket="no-such-bucket"), patience=IMPATIENT)
    for call in (lambda: put(nowhere), lambda: nowhere.read(DIGEST), lambda: list(nowhere.digests())):
        with pytest.raises(BlobsUnavailable, match="NoSuchBucket"):
            call()


def test_nobody_listens(place: S3Place) -> None:
    silent = S3Blobs(through(place, "http://127.0.0.1:1"), patience=replace(IMPATIENT, attempts=1))
    with pytest.raises(BlobsUnavailable, match="EndpointConnectionError"):
        silent.has(DIGEST)


def test_a_shelf_reports_the_same_way(place: S3Place, proxy: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    shelf = S3Shelf(through(place, proxy.endpoint), patience=IMPATIENT)
    proxy.faults += [("PUT", "uploads", "503"), ("GET", "uploads", "truncate"), ("GET", "list-type", "500")]
    assert shelf.add("uploads/a/b", DATA)
    assert shelf.get("uploads/a/b") == DATA
    assert [piece.size for piece in shelf.list("uploads")] == [len(DATA)]
    proxy.faults.append(("PUT", "uploads", "*503"))
    with pytest.raises(BlobsUnavailable):
        shelf.add("uploads/a/c", DATA)
    proxy.faults[:] = [("PUT", "uploads", "*unconditional")]
    assert not shelf.add("uploads/a/b", b"other")
    assert shelf.add("uploads/a/d", b"first")
    assert shelf.get("uploads/a/d") == b"first"


# ------------------------------------------------------------------------------------ collector beside a put


def collector(place: S3Place, proxy: Front) -> tuple[threading.Thread, list[bool]]:
    """A collection of DIGEST that is held up just before its DELETE."""
    old = datetime(2026, 1, 1, tzinfo=UTC)
    removed: list[bool] = []
    proxy.faults.append(("DELETE", f"/{KEY}", "hold"))
    store = S3Blobs(through(place, proxy.endpoint))
    thread = threading.Thread(
        target=lambda: removed.append(store.delete_for_ever(DIGEST, unless_renewed_since=old))
    )
    thread.start()
    assert proxy.arrived.wait(10)
    return thread, removed


@pytest.mark.parametrize("renew", [False, True])
def test_a_put_that_meets_a_deletion_survives_it(place: S3Place, proxy: Front, renew: bool) -> None:
    """It has overwritten what the collector has decided to delete: the mark tells, and it puts again."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        proxy.held.set()
        thread.join(10)

    direct = S3Blobs(place, sleep=sleep)
    put(direct)
    aged(place, KEY)
    thread, removed = collector(place, proxy)
    assert keys(place, "doomed/") != []
    if renew:
        assert not direct.renew(DIGEST)  # so it must be put
        assert slept == []
    assert put(direct) == (DIGEST, len(DATA))
    if renew:
        proxy.held.set()
        thread.join(10)
    thread.join(10)
    assert removed == [True]
    assert put(direct) == (DIGEST, len(DATA)) if renew else slept
    assert direct.read(DIGEST) == DATA
    assert keys(place, "doomed/") == []


def test_a_mark_of_a_dead_collector_expires(place: S3Place) -> None:
    blobs = S3Blobs(place, renew_after=0)
    put(blobs)
    raw(place).put_object(Bucket=place.bucket, Key=f"{place.prefix}doomed/{DIGEST.hex}/dead", Body=b"")
    assert not blobs.renew(DIGEST)
    impatient = S3Blobs(place, renew_after=0, sleep=lambda _: None)
    with pytest.raises(BlobsUnavailable, match="being collected"):
        put(impatient)
    aged(place, f"doomed/{DIGEST.hex}/dead")
    assert put(blobs) == (DIGEST, len(DATA))
    assert blobs.renew(DIGEST)
    assert blobs.leftovers(before=FUTURE, delete=True).count == 1
    assert keys(place) == [KEY]


def test_a_deletion_whose_answer_gets_lost_is_not_repeated(place: S3Place, proxy: Front) -> None:
    """The second DELETE could hit what somebody has put in between; the mark stays until it expires."""
    blobs = S3Blobs(through(place, proxy.endpoint), patience=IMPATIENT)
    put(blobs)
    proxy.faults.append(("DELETE", f"/{KEY}", "lost"))
    with pytest.raises(BlobsUnavailable):
        blobs.delete_for_ever(DIGEST, unless_renewed_since=FUTURE)
    assert proxy.count("DELETE") == 1
    assert keys(place, "doomed/") != []
    with pytest.raises(BlobNotFound):
        blobs.stat(DIGEST)


# ------------------------------------------------------------------------------------------------ where it is


@pytest.mark.parametrize("prefix", ["a", "/", "/a/", "a/b"])
def test_prefixes_that_would_surprise(prefix: str) -> None:
    with pytest.raises(InvalidInput):
        S3Place("bucket", prefix)
    with pytest.raises(InvalidInput):
        S3Place("", "a/")


def test_two_registries_in_one_bucket_do_not_meet(place: S3Place) -> None:
    one, two = S3Blobs(replace(place, prefix="one/")), S3Blobs(replace(place, prefix="two/"))
    put(one)
    assert not two.has(DIGEST)
    assert list(two.digests()) == []
    assert S3Blobs(replace(place, prefix="")).has(DIGEST) is False


def test_secrets_are_not_shown() -> None:
    assert "hidden" not in repr(S3Place("bucket", credentials=S3Credentials("id", "hidden", "hidden too")))
    assert CREDENTIALS.secret_key not in repr(CREDENTIALS)
