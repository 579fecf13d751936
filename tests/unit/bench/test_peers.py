"""Peers: what is compared, and that a version that is not installed is not measured as one that is."""

from pathlib import Path

import pytest

from bench.peers import environments
from bench.peers.environments import Peer, PeerMissing
from bench.peers.ratios import ratios


def test_ratios_are_ours_over_theirs() -> None:
    sides = {
        "direct": {"rps_32": 100.0, "streams_32": 50.0},
        "router": {"rps_32": 20.0, "streams_32": 9.0},
        "litellm": {"rps_32": 0.25, "streams_32": 0.1},
        "vllm_router": {"rps_32": 40.0, "streams_32": 10.0},
    }
    assert ratios(sides) == {
        "ratio_litellm": 80.0,
        "ratio_litellm_streams": 90.0,
        "ratio_vllm_router": 0.5,
        "ratio_vllm_router_streams": 0.9,
    }
    assert ratios({name: sides[name] for name in ("direct", "router")}) == {}


def test_another_version_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    peer = Peer("other", "other==2", "other-program")
    with pytest.raises(PeerMissing, match="install"):
        _ = peer.path
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "installed").write_text("other==1")
    with pytest.raises(PeerMissing):
        _ = peer.path
    (tmp_path / "other" / "installed").write_text("other==2")
    assert peer.path == tmp_path / "other" / "bin" / "other-program"


def test_every_peer_is_pinned() -> None:
    assert all("==" in peer.requirement for peer in environments.ALL)
