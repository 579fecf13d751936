"""Where peers are installed: ``.cache/peers/<name>``, at versions that are told beside their figures."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[2] / ".cache" / "peers"


class PeerMissing(Exception):
    def __init__(self, peer: "Peer") -> None:
        super().__init__(f"{peer.name} is not installed: run python -m bench.peers install")


@dataclass(frozen=True)
class Peer:
    name: str
    requirement: str
    """Pinned: another version is another peer."""
    program: str

    @property
    def path(self) -> Path:
        """Of its program. Raises PeerMissing when this version of it is not there."""
        if not self._mark.is_file() or self._mark.read_text() != self.requirement:
            raise PeerMissing(self)
        return self._folder / "bin" / self.program

    def install(self) -> None:
        """Raises CalledProcessError."""
        python = self._folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", "--clear", self._folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", self.requirement], check=True)
        self._mark.write_text(self.requirement)

    @property
    def _folder(self) -> Path:
        return FOLDER / self.name

    @property
    def _mark(self) -> Path:
        return self._folder / "installed"


LITELLM = Peer("litellm", "litellm[proxy]==1.106.2", "litellm")
VLLM_ROUTER = Peer("vllm-router", "vllm-router==0.1.17", "vllm-router")
ALL = (LITELLM, VLLM_ROUTER)
