"""Shipped records back in folders: every writer's, with what was done to them where they were kept."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from registry import canonical
from registry.blobs.s3_shelf import S3Shelf
from registry.digests import Digest
from registry.errors import AlreadyExists
from router.groups import Group
from router.receipts import issue
from router.records import Trace, genesis
from server.api.app import create_app
from server.assembly import place as places
from server.shipping.fetch import RegistrySource, ShelfSource, Source, fetch
from server.shipping.parquet import decoded, encoded, newest
from server.shipping.registry import Registry
from server.shipping.ship import Files, ship
from tests.journeys.commands import tenon_here
from tests.support.chains import grow
from tests.support.control import ControlWorld, control_world
from tests.support.registries import signer
from tests.support.remote import serving
from tests.support.s3 import S3Server


@dataclass
class Site:
    """Two routers' volumes, shipped to a folder and to the registry, which is behind a URL."""

    url: str
    folder: Path
    bench: ControlWorld
    lines: dict[str, list[bytes]]

    @property
    def shipped(self) -> Path:
        return self.folder / "shipped"

    def ask(self, *words: str) -> tuple[int, str, str]:
        done = tenon_here(*words, "-w", self.url)
        return done.code, done.out, done.err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "control").mkdir()
    with control_world(tmp_path / "control") as bench, serving(create_app(bench.control)) as url:
        secret = bench.secret("platform_admin", None)
        monkeypatch.setattr(places, "key_for", lambda _url: secret)
        lines = {}
        for name in ("router-0", "router-1"):
            volume = tmp_path / "volumes" / name
            lines[name] = grow(volume, ["bank_a", None, "retail_b"] * 4, bench.world.catalog)
            ship(volume, Registry(bench.world.catalog))
            done = tenon_here(
                "record", "ship", "--to", str(tmp_path / "shipped"), "--records", str(volume.parent)
            )
            assert done.code == 0, done.err
        yield Site(url, tmp_path, bench, lines)


def read(folder: Path) -> dict[str, list[bytes]]:
    return {
        writer.name: [
            line for file in sorted(writer.glob("*.jsonl")) for line in file.read_bytes().splitlines()
        ]
        for writer in sorted(folder.iterdir())
    }


def test_the_lines_are_those_that_the_routers_wrote(site: Site, tmp_path: Path, s3: S3Server) -> None:
    shelf = S3Shelf(s3.place(prefix="records/"))
    for name in site.lines:
        ship(tmp_path / "volumes" / name, Files(shelf, encoded, newest), batch=5)
    sources: list[Source] = [ShelfSource(shelf, decoded), RegistrySource(site.bench.world.catalog)]
    for number, source in enumerate(sources):
        into = tmp_path / str(number)
        assert fetch(source, into) == {"router-0": 12, "router-1": 12}
        assert read(into) == site.lines
        with pytest.raises(AlreadyExists):
            fetch(source, into)


def test_every_kind_of_line_comes_back_as_it_was() -> None:
    at = "2026-01-01T00:00:00.000001Z"
    full = Trace(id="rec-1", tenant="bank_a", status=200, version=Digest.of(b"v"), epoch=3, canary=True)
    full.finish_reasons, full.started_at, full.surface, full.agrees = ("stop", "length"), at, "chat", False
    group = Group(id="rec-2", code="not_http", status=400, started_at=at, last_at=at, count=7)
    lines = [
        full.line("outcome", writer="w", seq=0, prev=genesis("w"), at=at),
        group.line("malformed", writer="w", seq=1, prev=genesis("w"), at=at),
        Trace(id="rec-3").line(
            "intent", writer="w", seq=2, prev=genesis("w"), at="2026-01-01T00:00:00.100000Z"
        ),
    ]
    old = canonical.decode(lines[2])
    del old["canary"]
    lines.append(canonical.encode(old))
    assert decoded(encoded(lines)) == lines


def test_what_a_cluster_shipped_answers_the_questions_about_it(site: Site) -> None:
    into = site.folder / "all"
    assert tenon_here("record", "fetch", str(into), "--from", str(site.shipped)).code == 0
    code, _, said = site.ask("log", "verify", "--records", str(into))
    assert code == 0, said
    assert "ok: 24 request records" in said
    code, out, said = site.ask(
        *("exposure", "--event", "vllm-47724", "--since", "2026-01-01T00:00:00Z", "--json"),
        "--records",
        str(into),
    )
    assert code == 0, said
    assert json.loads(out)["unjudged"] == []
    code, out, said = site.ask("record", "show", "rec-5", "--records", str(into), "--json")
    assert json.loads(out)["id"] == "rec-5"
    for records in (into, site.folder / "volumes"):
        receipt, proven = site.folder / "receipt.json", site.folder / "proven.json"
        receipt.write_bytes(issue(site.lines["router-1"][5], signer("router")).canonical())
        code, _, said = site.ask(
            "receipt", "prove", str(receipt), "-o", str(proven), "--records", str(records)
        )
        assert code == 0, said
        keys = site.folder / "keys.json"
        trusted = site.bench.world.catalog.trusted().values()
        keys.write_text(json.dumps([key.model_dump(mode="json") for key in trusted]))
        checked = tenon_here("receipt", "verify", str(proven), "--trust", str(keys))
        assert checked.code == 0, checked.err
        assert "proven" in checked.err


@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_changed_where_it_was_kept_is_a_finding(site: Site, hidden: bool) -> None:
    """``hidden``: the digest beside it was changed, too."""
    (file,) = (site.shipped / "router-0").glob("*.parquet")
    rows = pq.read_table(file).to_pylist()
    rows[4]["tenant"] = "nobody_b"
    if hidden:
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
        rows[4]["digest"] = str(Digest.of(decoded(file.read_bytes())[4]))
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    into = site.folder / "all"
    assert tenon_here("record", "fetch", str(into), "--from", str(site.shipped)).code == 0
    code, _, said = site.ask("log", "verify", "--records", str(into))
    assert code == 1
    assert "seq 4" in said
    assert "bytes were changed" in said
    receipt = site.folder / "receipt.json"
    receipt.write_bytes(issue(site.lines["router-0"][5], signer("router")).canonical())
    code, _, said = site.ask("receipt", "prove", str(receipt), "--records", str(into))
    assert code == 1
    assert "not those that the head" in said


def test_what_is_not_there_is_said(site: Site, tmp_path: Path) -> None:
    assert tenon_here("record", "fetch", str(tmp_path / "x"), "--from", str(tmp_path / "nope")).code != 0
    assert not (tmp_path / "nope").exists()
    assert tenon_here("record", "fetch", str(tmp_path / "x")).code == 2
    (file,) = (site.shipped / "router-0").glob("*.parquet")
    file.unlink()
    into = tmp_path / "all"
    assert tenon_here("record", "fetch", str(into), "--from", str(site.shipped)).code == 0
    assert [path.name for path in into.iterdir()] == ["router-1"]
    code, _, said = site.ask(
        *("exposure", "--event", "vllm-47724", "--since", "2026-01-01T00:00:00Z"), "--records", str(into)
    )
    assert code == 1
    assert "router-0" in said
