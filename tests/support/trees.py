"""Trees in memory, stored as the database stores them."""

from collections.abc import Sequence

from registry.log.merkle import Frontier
from registry.log.tiles import Tiles, stored


def tiles_of(leaves: Sequence[bytes]) -> Tiles:
    frontier = Frontier()
    nodes: dict[int, list[bytes]] = {}
    for position, leaf in enumerate(leaves):
        for height, at, node in stored(position, frontier.append(leaf)):
            assert at == len(nodes.setdefault(height, []))
            nodes[height].append(node)
    return Tiles(lambda height, start, end: nodes.get(height, [])[start:end], size=len(leaves))
