"""How the router compares to its peers: medians of the same run, ours over theirs."""

from collections.abc import Mapping

Figures = Mapping[str, float]


def ratios(sides: Mapping[str, Figures]) -> dict[str, float]:
    """For each peer measured beside the router: requests and streams a second at 32 clients."""
    ours = sides["router"]
    found: dict[str, float] = {}
    for name, theirs in sides.items():
        if name not in {"router", "direct"}:
            found[f"ratio_{name}"] = ours["rps_32"] / theirs["rps_32"]
            found[f"ratio_{name}_streams"] = ours["streams_32"] / theirs["streams_32"]
    return found
