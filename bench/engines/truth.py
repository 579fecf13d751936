"""Whose words they are: an answer beside what transformers and PEFT say of every adapter (its fingerprint).

The router's word for which version has answered is not taken for it. All adapters of a base have the same
random probes, so one prompt tells all of them apart.
"""

from collections.abc import Mapping
from pathlib import Path

from registry.digests import Digest
from registry.fingerprint import Fingerprint

OWN = 1e-3
"""Farthest that an own answer may be: float32 in a batch of others stays below 1e-4, and the nearest other
adapter is beyond 0.1."""
TOP = 20


class Truth:
    def __init__(self, base: Path, fingerprints: Mapping[Digest, Fingerprint]) -> None:
        import tokenizers

        known = tokenizers.Tokenizer.from_file(str(base / "tokenizer.json"))
        texts = [known.decode([token], skip_special_tokens=False) for token in range(known.get_vocab_size())]
        # Parts of letters all look alike: what two tokens share is not compared.
        once = {text for text in texts if texts.count(text) == 1 and "\ufffd" not in text}
        self._texts = [text if text in once else None for text in texts]
        self.prompts: tuple[tuple[int, ...], ...] = ()
        self._own: dict[str, list[dict[str, float]]] = {}
        for version, fingerprint in fingerprints.items():
            self.add(version, fingerprint)

    def add(self, version: Digest, fingerprint: Fingerprint) -> None:
        shared = [probe for probe in fingerprint.probes if probe.kind == "random"]
        prompts = tuple(probe.token_ids for probe in shared)
        if self.prompts and prompts != self.prompts:
            raise ValueError("two fingerprints of one base have other random probes")
        self.prompts = prompts
        self._own[str(version)] = [
            {text: value for token, value in probe.own if (text := self._texts[token]) is not None}
            for probe in shared
        ]

    def distance(self, version: str, prompt: int, seen: Mapping[str, float]) -> float:
        """Mean difference over the tokens that both name. Infinite when they name hardly any together."""
        own = self._own[version][prompt]
        both = [abs(value - own[text]) for text, value in seen.items() if text in own]
        return sum(both) / len(both) if len(both) >= TOP // 4 else float("inf")

    def right(self, version: str, prompt: int, seen: Mapping[str, float]) -> bool:
        """Whether this version gave the answer, and no other could have."""
        if version not in self._own or self.distance(version, prompt, seen) > OWN:
            return False
        others = (self.distance(other, prompt, seen) for other in self._own if other != version)
        return all(distance > OWN for distance in others)
