"""The auditor's script: the same checks written anew, held against ours and against a library's."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import LogExportInvalid
from registry.log import merkle, proofs
from registry.log.export import verify_export
from registry.models import PublicKey, Role
from tests.support.registries import World, open_world, signer
from tests.support.trees import tiles_of

SCRIPT = Path(__file__).parents[3] / "scripts" / "verify-log-export"
FIRST = signer("log").public


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("verify_log_export", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = open_world(tmp_path_factory.mktemp("exported"))
    made.promoted()
    made.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    made.catalog.rotate_log_key(signer("log", 1), actor="test")
    made.catalog.issue_key("bank_a", role=Role.INFERENCE, actor="test")
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def lines(world: World) -> list[bytes]:
    return list(world.catalog.export_log("bank_a"))


def _proven(script: ModuleType, lines: list[bytes], *trusted: PublicKey) -> bool:
    keys = [key.model_dump(mode="json") for key in trusted]
    try:
        return bool(script.check(iter(lines), keys))
    except (script.Fault, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return False


def test_it_imports_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(SCRIPT.read_text().splitlines()) < 300


def test_it_proves_a_real_export_from_either_key(script: ModuleType, lines: list[bytes]) -> None:
    assert _proven(script, lines, FIRST)
    assert _proven(script, lines, signer("log", 1).public)
    assert not _proven(script, lines, signer("log", 2).public)
    assert not _proven(script, lines)


def test_a_fork_signed_with_a_stolen_older_key(
    script: ModuleType, world: World, lines: list[bytes], tmp_path: Path
) -> None:
    """Whoever knows the newer key as well misses it in the fork, and believes none of it."""
    first, second = FIRST, signer("log", 1).public
    both = {first.id: first, second.id: second}
    assert verify_export(lines, both).faults == ()
    assert _proven(script, lines, first, second)
    fork = open_world(tmp_path)  # never rotated
    forked = list(fork.catalog.export_log("bank_a"))
    fork.database.close()
    assert verify_export(forked, {first.id: first}).faults == ()
    assert _proven(script, forked, first)
    (fault,) = verify_export(forked, both).faults
    assert "no rotation between the trusted log keys" in fault
    assert not _proven(script, forked, first, second)
    third = signer("log", 2).public
    assert verify_export(lines, {**both, third.id: third}).faults
    assert not _proven(script, lines, first, second, third)


def test_others_entries_are_no_facts(script: ModuleType, world: World, lines: list[bytes]) -> None:
    """They are in the log that the head signs, and counted as facts they would pass for the platform's."""
    theirs = list(world.catalog.export_log("retail_b"))
    foreign = theirs[-1]
    kind = json.loads(json.loads(foreign)["entry"])["kind"]
    assert b"retail_b" in foreign
    header = json.loads(lines[0])
    facts = [line for line in lines[1 : 1 + header["facts"]] if _index(line) < _index(foreign)]
    later = lines[1 + len(facts) : 1 + header["facts"]]
    changed = json.dumps(header | {"facts": header["facts"] + 1}).encode() + b"\n"
    smuggled = [changed, *facts, foreign, *later, *lines[1 + header["facts"] :]]
    expected = f"line {2 + len(facts)}: {kind!r} is no public fact"
    assert verify_export(smuggled, {FIRST.id: FIRST}).faults == (expected,)
    with pytest.raises(script.Fault, match="is no public fact"):
        script.check(iter(smuggled), [FIRST.model_dump(mode="json")])


def _index(line: bytes) -> int:
    return int(json.loads(json.loads(line)["entry"])["index"])


def test_the_command(lines: list[bytes], tmp_path: Path) -> None:
    export, keys = tmp_path / "export.jsonl", tmp_path / "keys.json"
    keys.write_text(json.dumps([FIRST.model_dump(mode="json")]))
    for content, code, said in [
        (lines, 0, "and no other"),
        (lines[:-1], 1, "NOT PROVEN"),
        ([], 1, "NOT PROVEN"),
    ]:
        export.write_bytes(b"".join(content))
        command = [sys.executable, "-I", str(SCRIPT), str(export), "--trust", str(keys)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stdout) == (code, True), done
    command = [sys.executable, str(SCRIPT), "nowhere"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_found_by_both_or_changes_nothing(
    script: ModuleType, lines: list[bytes], data: st.DataObject
) -> None:
    whole = b"".join(lines)
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
    spoilt = changed.splitlines(keepends=True)
    trusted = {FIRST.id: FIRST}
    try:
        ours = not verify_export(spoilt, trusted).faults
    except LogExportInvalid:
        ours = False
    theirs = _proven(script, spoilt, FIRST)
    if ours or theirs:  # a hint, as the id of a signature's key or the list of keys, or white space
        entries = [json.loads(line) for line in spoilt[1:]]
        assert entries == [json.loads(line) for line in lines[1:]]
        for field in ("tenant", "tip", "tip_index", "tip_proof", "entries", "facts"):
            assert json.loads(spoilt[0])[field] == json.loads(lines[0])[field]


@given(st.integers(1, 60), st.data())
@settings(max_examples=60, deadline=None)
def test_its_proofs_are_ours(script: ModuleType, size: int, data: st.DataObject) -> None:
    leaves = [merkle.leaf_hash(b"%d" % index) for index in range(size)]
    tiles, root = tiles_of(leaves), merkle.root(leaves)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    inclusion = list(proofs.inclusion_proof(tiles, index, size))
    consistency = list(proofs.consistency_proof(tiles, first, size))
    old = merkle.root(leaves[:first])
    assert script.included(leaves[index], index, size, inclusion, root)
    assert script.consistent(first, size, old, root, consistency)
    other = merkle.leaf_hash(b"other")
    assert not script.included(other, index, size, inclusion, root)
    assert not script.included(leaves[index], index, size, [*inclusion, other], root)
    assert not script.consistent(first, size, other, root, consistency)
    assert not script.consistent(first, size, old, other, consistency)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.data())
@settings(max_examples=30, deadline=None)
def test_its_signatures_are_those_of_a_library(
    script: ModuleType, seed: bytes, message: bytes, data: st.DataObject
) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = private.public_key().public_bytes_raw(), private.sign(message)
    assert script.signed_by(public, message, signature)
    parts = [public, message or b"x", signature]
    which, bit = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 511))
    part = parts[which]
    bit %= 8 * len(part)
    parts[which] = part[: bit // 8] + bytes([part[bit // 8] ^ 1 << bit % 8]) + part[bit // 8 + 1 :]
    if parts != [public, message, signature]:
        assert not script.signed_by(*parts)


def test_rfc_8032_and_signatures_that_only_look_right(script: ModuleType) -> None:
    """Vectors 1 and 2 of RFC 8032, 7.1; then the same with S + L, and points that are none."""
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    assert script.signed_by(public, b"", signature)
    second = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    assert script.signed_by(
        second,
        b"\x72",
        bytes.fromhex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    )
    larger = int.from_bytes(signature[32:], "little") + script.ORDER
    assert not script.signed_by(public, b"", signature[:32] + larger.to_bytes(32, "little"))
    assert not script.signed_by((2**255 - 19).to_bytes(32, "little"), b"", signature)
    assert not script.signed_by(public[:31], b"", signature)
    assert not script.signed_by(public, b"", signature[:63])
