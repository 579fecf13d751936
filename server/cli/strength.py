"""How surely an engine can tell a version from others, in a sentence."""

from registry.fingerprint import Fingerprint


def sentence(fingerprint: Fingerprint) -> str:
    probes, away = len(fingerprint.probes), fingerprint.distance_to_base
    parts = [f"{away:.3g} from its base on {probes} probes"]
    parts += [f"{dtype} noise {noise:.2g}" for dtype, noise in sorted(fingerprint.noise.items())]
    if fingerprint.weak:
        parts.append(f"only weakly attestable in {' and '.join(fingerprint.weak)}")
    for dtype, versions in sorted(fingerprint.alike.items()):
        parts.append(f"in {dtype} indistinguishable from {', '.join(each.short for each in versions)}")
    return "; ".join(parts)
