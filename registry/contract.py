"""The contract: what training and serving must agree on, checked on every engine before it is ready.

vLLM ignores an adapter's own tokenizer and template, and template drift changes behaviour without a single
changed weight (unsloth #3842, LLaMA-Factory #7997): so the agreement is written down as token ids.
"""

from typing import Any

from registry.canonical import Document
from registry.digests import Digest


class GoldenConversation(Document):
    messages: tuple[dict[str, Any], ...]
    add_generation_prompt: bool
    token_ids: tuple[int, ...]


class Contract(Document):
    base: Digest
    tokenizer: Digest
    chat_template: Digest
    golden: tuple[GoldenConversation, ...]
