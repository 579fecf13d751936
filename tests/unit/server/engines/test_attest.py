from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from registry.clock import ManualClock
from registry.contract import Contract
from registry.digests import Digest
from registry.fingerprint import TopLogprobs
from registry.manifests import BlobRef
from registry.names import engine_name
from server.engines.attest import (
    Observation,
    Witness,
    attestation_of,
    check_contract,
    judge_together,
    observe,
)
from server.engines.errors import ContractMismatch, EngineAnswerUnusable, EngineUnreachable
from server.testing.fake_model import fake_contract, fake_fingerprint, fake_logprobs, toy_token_ids
from tests.support.adapters import tiny_base

BASE, _ = tiny_base()
ID = BASE.identity()
A, B = Digest.of(b"weights a"), Digest.of(b"weights b")


class Scripted:
    """An engine whose slot holds ``weights``."""

    def __init__(
        self, weights: Digest | None, *, error: Exception | None = None, extra: tuple[int, ...] = ()
    ) -> None:
        self.weights, self.error, self.extra = weights, error, extra
        self.salts: list[str] = []

    async def tokenize(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, model: str
    ) -> tuple[int, ...]:
        if self.error:
            raise self.error
        return self.extra + toy_token_ids(messages, add_generation_prompt=add_generation_prompt)

    async def probe(
        self, *, model: str, prompts: Sequence[Sequence[int]], cache_salt: str
    ) -> tuple[TopLogprobs, ...]:
        assert model.startswith("tenon-")
        self.salts.append(cache_salt)
        if self.error:
            raise self.error
        return tuple(fake_logprobs(self.weights, prompt)[:20] for prompt in prompts)


def files(content: bytes) -> tuple[BlobRef, ...]:
    return (BlobRef(path="adapter_model.safetensors", digest=Digest.of(content), size=len(content)),)


async def look(engine: Scripted, expected: Digest, content: bytes = b"") -> Observation:
    return await observe(
        engine,
        version=expected,
        fingerprint=fake_fingerprint(ID, expected),
        files=files(content or expected.encode()),
        salt="s",
    )


async def test_the_right_adapter_is_exact_in_float32() -> None:
    seen = await look(Scripted(A), A)
    assert judge_together([seen], dtype="float32")[A].strength == "exact"


@pytest.mark.parametrize("held", [None, B])
async def test_the_base_or_another_adapter_under_the_name_fails(held: Digest | None) -> None:
    seen = await look(Scripted(held), A)
    for dtype in ("float32", "bfloat16"):
        assert not judge_together([seen], dtype=dtype)[A].passed


async def test_swapped_slots_fail_both_and_name_what_they_are_closest_to() -> None:
    observations = [await look(Scripted(B), A), await look(Scripted(A), B)]
    found = judge_together(observations, dtype="float32")
    assert not found[A].passed
    assert not found[B].passed


@pytest.mark.parametrize(("dtype", "strength"), [("float32", "exact"), ("bfloat16", "ratio")])
async def test_a_copied_fingerprint_does_not_put_its_victim_out_of_service(dtype: str, strength: str) -> None:
    """B's version carries A's fingerprint; its slot shows B's own behaviour."""
    victim = await look(Scripted(A), A)
    forged = await observe(
        Scripted(B), version=B, fingerprint=fake_fingerprint(ID, A), files=files(b"b"), salt="s"
    )
    for order in ([victim, forged], [forged, victim]):
        found = judge_together(order, dtype=dtype)
        assert found[A].strength == strength, "the copy is no rival before it has shown what it claims"
        assert not found[B].passed


@pytest.mark.parametrize(("dtype", "strength"), [("float32", "exact"), ("bfloat16", "ratio")])
async def test_the_same_files_under_two_versions_are_both_served(dtype: str, strength: str) -> None:
    twin = Digest.of(b"twin")
    fingerprint = fake_fingerprint(ID, A)
    seen = [
        await observe(Scripted(A), version=version, fingerprint=fingerprint, files=files(b"a"), salt="s")
        for version in (A, twin)
    ]
    found = judge_together(seen, dtype=dtype)
    assert [found[version].strength for version in (A, twin)] == [strength, strength]


async def test_different_files_that_behave_the_same_are_attested_weakly() -> None:
    other = Digest.of(b"other")
    fingerprint = fake_fingerprint(ID, A)
    seen = [
        await observe(
            Scripted(A), version=version, fingerprint=fingerprint, files=files(version.encode()), salt="s"
        )
        for version in (A, other)
    ]
    found = judge_together(seen, dtype="float32")
    assert found[A].strength == "weak"
    assert f"indistinguishable from {other}" in found[A].reason


async def test_an_unusable_answer_is_a_failed_finding_and_silence_is_none() -> None:
    seen = await look(Scripted(A, error=EngineAnswerUnusable("the engine answered 500")), A)
    finding = judge_together([seen], dtype="float32")[A]
    assert not finding.passed
    assert "500" in finding.reason
    with pytest.raises(EngineUnreachable):
        await look(Scripted(A, error=EngineUnreachable("no answer")), A)


async def test_the_contract_holds_or_says_where_it_breaks() -> None:
    contract = fake_contract(BASE)
    await check_contract(Scripted(None), contract, base=ID, model="tenon-base")
    with pytest.raises(ContractMismatch, match="conversation 1 becomes other tokens, from position 0"):
        await check_contract(Scripted(None, extra=(0,)), contract, base=ID, model="tenon-base")
    with pytest.raises(ContractMismatch, match="another base"):
        await check_contract(Scripted(None), contract, base=A, model="tenon-base")
    with pytest.raises(ContractMismatch, match="nothing can be compared"):
        await check_contract(
            Scripted(None), contract.model_copy(update={"golden": ()}), base=ID, model="tenon-base"
        )
    with pytest.raises(ContractMismatch, match="400"):
        await check_contract(
            Scripted(None, error=EngineAnswerUnusable("400")), contract, base=ID, model="tenon-base"
        )


async def test_a_prefix_of_the_tokens_is_not_enough() -> None:
    whole = fake_contract(BASE)
    golden = whole.golden[0]
    short = golden.model_copy(update={"token_ids": golden.token_ids[:-1]})
    contract = Contract(**{**dict(whole), "golden": (short,)})
    with pytest.raises(ContractMismatch, match=f"position {len(golden.token_ids) - 1}"):
        await check_contract(Scripted(None), contract, base=ID, model="tenon-base")


async def test_the_testimony_names_everything_that_was_looked_at() -> None:
    seen = await look(Scripted(A), A)
    finding = judge_together([seen], dtype="float32")[A]
    witness = Witness("engine-0", "boot-0123", "0.32.0", "float32", ID)
    clock = ManualClock()
    said = attestation_of(
        finding,
        witness=witness,
        version=A,
        fingerprint=Digest.of(b"f"),
        contract=Digest.of(b"c"),
        observed_at=clock.now(),
    )
    assert said.passed
    assert (said.engine, said.boot, said.version, said.base) == ("engine-0", "boot-0123", A, ID)
    assert said.observed_at == "2026-01-01T00:00:00.000000Z"
    assert engine_name(said.version) == f"tenon-{A.hex}"
