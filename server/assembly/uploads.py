"""Adapters that were trained elsewhere: fingerprinted here, so that they can be attested."""

from collections.abc import Mapping
from pathlib import Path

from registry.digests import Digest
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from registry.models import Base

_PROMPTS = 16
"""Twice the tenant probes of a fingerprint, so that it can choose the telling ones."""


def fingerprint(
    folder: Path,
    digest: Digest,
    base: Base,
    base_folder: Path,
    probes: Path | None,
    *,
    siblings: Mapping[Digest, Fingerprint] | None = None,
    max_rank: int = 64,
) -> Fingerprint:
    """The reference behaviour of an uploaded folder, which is inspected before a byte of it is loaded.

    ``siblings``: other versions of the adapter, to be told from. ``probes``: evaluation cases to take
    tenant-like probes from; without them only random ones are used.
    Raises IntakeRefused, and the trainer's error for an adapter without effect.
    """
    inspect(folder, base=base, max_rank=max_rank)

    from trainer.evaluation.local import LocalModel
    from trainer.evaluation.suite import load_suite
    from trainer.learning.fingerprint import TenantPrompt, make_fingerprint

    prompts = []
    if probes:
        # Nobody wrote answers down for an upload, so the adapter's own are where it is recognised.
        cases = load_suite(probes).rows[:_PROMPTS]
        answers = LocalModel(base_folder, folder).answers(
            cases, adapter=True, max_new_tokens=128, batch_size=16
        )
        prompts = [
            TenantPrompt(case.prompt, said, case.tools) for case, said in zip(cases, answers, strict=True)
        ]
    return make_fingerprint(digest, base_folder, folder, prompts, siblings=siblings)
