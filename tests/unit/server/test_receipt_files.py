"""Receipts as files: our check and the auditor's script, on the same honest and forged ones."""

import asyncio
import base64
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from registry.clock import ManualClock
from registry.digests import Digest
from registry.errors import ReceiptInvalid, TenonError
from registry.models import PublicKey
from registry.shipping import KnownHead
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from router.limits import Cadence
from router.receipts import Statement, issue, verify_receipt, verify_sealing
from router.records import Heads, RecordLog, Trace, content_digest
from router.records.log import durable
from router.records.segments import Segments
from server.assembly.catalog import initialise, open_catalog, signer
from server.assembly.receipts import prove_receipt, verify_receipt_file
from server.workspace import Workspace

SCRIPT = Path(__file__).parents[3] / "scripts" / "verify-receipt"
ANSWER = b'{"choices":[]}'
COUNT = 11


class Registry:
    """Takes heads into the workspace's own log."""

    def __init__(self, workspace: Workspace) -> None:
        self._catalog = open_catalog(workspace)

    async def known(self, writer: str) -> KnownHead:
        return self._catalog.record_head_known(writer)

    async def submit(self, envelope: Envelope) -> None:
        self._catalog.record_head(envelope, actor="router-0")


async def write(workspace: Workspace) -> list[bytes]:
    """Two heads' worth of records, and one that no head covers."""
    key, cadence = signer(workspace, "router"), Cadence(head_seconds=3600)
    segments = Segments(workspace.records / "router-0", writer="router-0", segment_bytes=3000)
    log = RecordLog(segments, writer="router-0", clock=ManualClock(), cadence=cadence)
    await log.open()
    heads = Heads(
        log=log, sink=Registry(workspace), signer=key, writer="router-0", clock=ManualClock(), cadence=cadence
    )
    version = Digest.of(b"version")
    for number in range(COUNT):
        trace = Trace(id=f"rec-{number}", tenant="bank_a", adapter="desk", version=version, status=200)
        trace.engine, trace.answer, trace.answer_of = "engine-0", Digest.of(ANSWER), "body"
        if number == 3:
            trace.answer, trace.answer_of = content_digest(["Grüße"]), "content"
        await durable(log.append("outcome", trace))
        if number in (2, COUNT - 2):
            await heads.submit()
    await log.close()
    files = sorted((workspace.records / "router-0").glob("*.jsonl"))
    return [line for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("verify_receipt", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


class World:
    def __init__(self, workspace: Workspace, lines: list[bytes]) -> None:
        self.workspace = workspace
        self.lines = lines
        self.router = signer(workspace, "router")
        self.trusted = open_catalog(workspace).trusted()
        self.keys = [key.model_dump(mode="json") for key in self.trusted.values()]
        self.file = workspace.root / "receipt.json"

    def proven(self, number: int) -> dict[str, Any]:
        self.file.write_bytes(issue(self.lines[number], self.router).canonical())
        return prove_receipt(
            self.file, catalog=open_catalog(self.workspace), records=self.workspace.records
        ).model_dump(mode="json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    workspace = initialise(tmp_path_factory.mktemp("receipts") / "workspace")
    return World(workspace, asyncio.run(write(workspace)))


def both(world: World, script: ModuleType, receipt: dict[str, Any], *trusted: PublicKey) -> bool:
    """Whether it is accepted; the two must agree."""
    data = orjson.dumps(receipt)
    keys = {key.id: key for key in trusted} or world.trusted
    try:
        verify_receipt(data, keys)
        verify_sealing(data, keys)
        ours = True
    except TenonError:
        ours = False
    try:
        theirs = bool(script.check(data, [key.model_dump(mode="json") for key in keys.values()]))
    except (script.Fault, ValueError, KeyError, TypeError, AttributeError, IndexError):
        theirs = False
    assert ours == theirs
    return ours


@pytest.mark.parametrize("number", range(COUNT - 1))
def test_each_sealed_record_is_proven_by_both(world: World, script: ModuleType, number: int) -> None:
    receipt = world.proven(number)
    assert both(world, script, receipt)
    assert not any(
        line.decode() in json.dumps(receipt) for line in world.lines if line != world.lines[number]
    )
    world.file.write_bytes(orjson.dumps(receipt))
    found = verify_receipt_file(world.file, trust=None, workspace=world.workspace)
    assert found.record.id == f"rec-{number}"
    assert found.sealed is not None


def test_what_no_head_covers_yet_is_not_proven_to_be_in_the_log(world: World) -> None:
    with pytest.raises(ReceiptInvalid, match="no head in the log covers"):
        world.proven(COUNT - 1)
    found = verify_receipt_file(world.file, trust=None, workspace=world.workspace)
    assert found.sealed is None


def _reissued(world: World, line: bytes, **changes: Any) -> dict[str, Any]:
    """Signed by the router's own key: what somebody could do who stole it."""
    fields = {**orjson.loads(line), **changes}
    return issue(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS), world.router).model_dump(mode="json")


def _nested(receipt: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    copy: dict[str, Any] = orjson.loads(orjson.dumps(receipt))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return copy


Forgery = Callable[[World, dict[str, Any], dict[str, Any]], dict[str, Any]]
FORGERIES: dict[str, Forgery] = {
    "another version in the line": lambda w, r, o: _nested(
        r, "record", to=base64.b64encode(w.lines[4].replace(b'"status":200', b'"status":201')).decode()
    ),
    "the line of another record": lambda w, r, o: _nested(r, "record", to=o["record"]),
    "the signature of another record": lambda w, r, o: _nested(r, "envelope", to=o["envelope"]),
    "the sealing of another record": lambda w, r, o: _nested(r, "sealing", to=o["sealing"]),
    "a path of another record": lambda w, r, o: _nested(r, "sealing", "path", to=o["sealing"]["path"]),
    "no path": lambda w, r, o: _nested(r, "sealing", "path", to=[]),
    "a longer path": lambda w, r, o: _nested(
        r, "sealing", "path", to=[*r["sealing"]["path"], str(Digest.of(b"x"))]
    ),
    "no inclusion": lambda w, r, o: _nested(r, "sealing", "inclusion", to=[]),
    "a log head that is a receipt": lambda w, r, o: _nested(r, "sealing", "log_head", to=r["envelope"]),
    "a changed entry": lambda w, r, o: _nested(
        r, "sealing", "entry", to=r["sealing"]["entry"].replace('"actor":"', '"actor":"x')
    ),
    "an entry of another kind": lambda w, r, o: _nested(
        r, "sealing", "entry", to=r["sealing"]["entry"].replace("records.head", "records.hand")
    ),
    "a line forged with the router's own key": lambda w, r, o: {
        **_reissued(w, w.lines[4], status=201),
        "sealing": r["sealing"],
    },
    "signed by an unknown key": lambda w, r, o: {
        **issue(w.lines[4], Signer.generate("router")).model_dump(mode="json")
    },
    "signed by a key of another role": lambda w, r, o: {
        **r,
        "envelope": signer(w.workspace, "engine")
        .sign(r["envelope"]["payloadType"], base64.b64decode(r["envelope"]["payload"]))
        .model_dump(mode="json"),
    },
    "signed as something else": lambda w, r, o: {
        **r,
        "envelope": w.router.sign(
            "application/vnd.tenon.record-head+json", base64.b64decode(r["envelope"]["payload"])
        ).model_dump(mode="json"),
    },
    "a statement of another place": lambda w, r, o: {
        **r,
        "envelope": w.router.sign(
            r["envelope"]["payloadType"],
            Statement(writer="router-0", seq=5, record=Digest.of(w.lines[4])).canonical(),
        ).model_dump(mode="json"),
    },
    "a field that nobody signed": lambda w, r, o: {**r, "proven": True},
    "a field of the sealing that nobody signed": lambda w, r, o: {
        **r,
        "sealing": {**r["sealing"], "proven": True},
    },
    "no signature": lambda w, r, o: _nested(r, "envelope", "signatures", to=[]),
    "no receipt at all": lambda w, r, o: {"kind": "tenon.receipt/v1"},
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_forged_receipt_is_refused_by_both(world: World, script: ModuleType, how: str) -> None:
    receipt, other = world.proven(4), world.proven(1)
    assert both(world, script, receipt)
    forged = FORGERIES[how](world, receipt, other)
    assert forged != receipt
    assert not both(world, script, forged)


def test_keys_that_are_not_trusted_prove_nothing(world: World, script: ModuleType) -> None:
    receipt = world.proven(4)
    router = world.router.public
    stranger = Signer.generate("log").public
    assert not both(world, script, receipt, stranger)
    assert not both(world, script, receipt, router, stranger)  # its log's head is a stranger's
    assert not both(world, script, receipt, router.model_copy(update={"role": "trainer"}))


def test_records_that_are_not_those_of_the_head_prove_nothing(world: World, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    receipt.write_bytes(issue(world.lines[4], world.router).canonical())
    last = sorted((world.workspace.records / "router-0").glob("*.jsonl"))[1]
    before = last.read_bytes()
    try:
        last.write_bytes(before.replace(b"bank_a", b"bank_b"))
        with pytest.raises(ReceiptInvalid, match="not those that the head"):
            prove_receipt(receipt, catalog=open_catalog(world.workspace), records=world.workspace.records)
        with pytest.raises(ReceiptInvalid, match="damaged"):
            verify_receipt_file(receipt, trust=None, workspace=world.workspace)
    finally:
        last.write_bytes(before)


def test_the_script_as_an_auditor_runs_it(world: World, tmp_path: Path) -> None:
    receipt, keys, answer = tmp_path / "r.json", tmp_path / "keys.json", tmp_path / "answer"
    receipt.write_bytes(orjson.dumps(world.proven(4)))
    keys.write_bytes(orjson.dumps(world.keys))
    answer.write_bytes(ANSWER)

    def run(*more: str) -> tuple[int, str]:
        argv = [sys.executable, "-I", "-S", str(SCRIPT), str(receipt), "--trust", str(keys), *more]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout

    code, said = run("--answer", str(answer))
    assert code == 0
    assert [line.split(":")[0] for line in said.splitlines()] == ["proven"] * 3
    answer.write_bytes(ANSWER + b" ")
    assert run("--answer", str(answer)) == (1, "NOT PROVEN: the record is of another answer\n")
    for kept, fields, why in (
        ("hmac", {}, "is keyed (retention hmac)"),
        ("full", {}, "is keyed (retention full)"),
        ("none", {"answer": None, "answer_of": None}, "was not kept (retention none)"),
    ):
        receipt.write_bytes(orjson.dumps(_reissued(world, world.lines[4], retention=kept, **fields)))
        assert run()[0] == 0
        for more in (("--answer", str(answer)), ("--content", "Grüße")):
            code, said = run(*more)
            assert code == 3
            assert said.startswith("proven: rec-4: ")
            assert said.splitlines()[-1].startswith(f"not checked: the digest of the answer {why}")
            assert ("tenon record show rec-4 --matches" in said) == (kept != "none")
    forged = _nested(_reissued(world, world.lines[4], retention="full"), "record", to="")
    receipt.write_bytes(orjson.dumps(forged))
    assert run("--answer", str(answer))[0] == 1
    refusal = _reissued(world, world.lines[4], retention="none")  # refused before its policy was known
    receipt.write_bytes(orjson.dumps(refusal))
    assert run("--answer", str(answer))[0] == 1
    answer.write_bytes(ANSWER)
    assert run("--answer", str(answer))[0] == 0
    receipt.write_bytes(orjson.dumps(world.proven(3)))
    assert run("--content", "Grüße")[0] == 0
    assert run("--content", "Gruss")[0] == 1
    receipt.write_bytes(b"{")
    assert run()[0] == 1
