"""A vLLM is started, and is nobody's engine until it has shown what it is."""

import asyncio
import contextlib
import stat
from pathlib import Path

from registry.digests import Digest
from registry.errors import TenonError
from registry.models import EngineState
from server.engines import guarded
from server.engines.attest import Witness
from server.engines.boot import Boot, Weights
from server.engines.client import VllmClient
from server.engines.errors import EngineAnswerUnusable, EngineStartFailed, EngineUnreachable
from server.engines.faults import Faults
from server.engines.process import EngineProcess
from server.engines.residency import Capacity
from server.engines.spec import NULL_NAME, EngineSpec
from server.engines.surroundings import Surroundings
from server.engines.versions import refuse_untrusted


class Opening:
    """Of one boot; ``spec``: with its guard, if it has one."""

    def __init__(self, around: Surroundings, spec: EngineSpec, base: Digest, client: VllmClient) -> None:
        self._around = around
        self._spec = spec
        self._base = base
        self._client = client

    async def start(self, child: EngineProcess) -> None:
        """Returns when vLLM answers. Raises EngineStartFailed."""
        spec = self._spec
        if await self._client.answers():
            raise EngineStartFailed(f"something else already answers at {spec.where}")
        if spec.uds is not None:
            await asyncio.to_thread(_clear, spec.uds)
        child.start()
        await child.wait_ready(self._client.answers, limit=self._around.cadence.start_limit)

    async def examine(self) -> tuple[Boot, EngineState]:
        """The boot, and how to announce it. Raises EngineStartFailed, EngineUnguarded, and what
        is wrong with its version."""
        spec, around = self._spec, self._around
        version = await self._version()
        weights = Weights(merged=spec.merged, null=await self._load_null())
        await self._prove_guard(weights.null)
        boot_id = around.new_id()
        lora = spec.merged is None
        announced = EngineState(
            engine=spec.engine,
            boot=boot_id,
            url=spec.public_url,
            base=self._base,
            engine_version=version,
            dtype=spec.dtype,
            max_loras=spec.max_loras if lora else 1,
            names=spec.names if lora else 1,
            max_rank=spec.rank,
            slot_rank=spec.boot_sizes.rank if lora and spec.boot_sizes.rank < spec.rank else None,
            merged=spec.merged,
            guarded=spec.guard is not None,
            key=around.signer.public.id,
        )
        around.suspects.fresh_boot(asyncio.get_running_loop().time())
        boot = Boot(
            witness=Witness(spec.engine, boot_id, version, spec.dtype, self._base),
            capacity=Capacity(
                names=spec.boot_sizes.names if lora else 1, rank=spec.boot_sizes.rank, bound=spec.rank
            ),
            engine=self._client,
            control=around.control,
            signer=around.signer,
            cache=around.cache,
            clock=around.clock,
            new_salt=around.new_id,
            republish=around.cadence.republish,
            report=around.report,
            weights=weights,
            faults=Faults(
                pauses=around.cadence.backoff,
                tries=around.cadence.tries,
                chances=around.chances,
                suspects=around.suspects,
                report=around.report,
            ),
            absent=around.absent,
            prove=lambda loads: self._prove(loads if weights.null is None else loads + 1),
        )
        return boot, announced

    async def _version(self) -> str:
        """What just came up must be a safe vLLM, ours, and empty."""
        try:
            version = await self._client.version()
            names = await self._client.models()
        except (EngineUnreachable, EngineAnswerUnusable) as error:
            raise EngineStartFailed(error.message) from None
        refuse_untrusted(version, self._spec.device, allow_uncertified=self._spec.allow_uncertified)
        if set(names) != {self._spec.served_name}:
            raise EngineStartFailed("the engine serves names at its start that nobody gave it")
        return version

    async def _load_null(self) -> str | None:
        """Where D1 is (the CPU), before anything else; its name then."""
        if self._spec.device != "cpu" or self._spec.merged is not None:
            return None
        try:
            files = self._around.null()
            folder = await asyncio.to_thread(self._around.cache.place, NULL_NAME, files)
            await self._client.load(NULL_NAME, folder)
        except TenonError as error:
            raise EngineStartFailed(f"the null adapter could not be loaded: {error.message}") from None
        return NULL_NAME

    async def _prove_guard(self, null: str | None) -> None:
        """One token is made and must have been watched. Raises EngineUnguarded."""
        if self._spec.guard is None:
            return
        model = null or self._spec.served_name
        try:
            await self._client.probe(model=model, prompts=[[1, 2, 3]], cache_salt=self._around.new_id())
        except EngineAnswerUnusable as error:
            raise EngineStartFailed(error.message) from None
        self._prove(0 if null is None else 1)

    def _prove(self, loads: int) -> None:
        if self._spec.guard is not None:
            guarded.prove(self._spec.guard.parent, loads=loads, workers=self._spec.tensor_parallel_size)


def _clear(socket: Path) -> None:
    """What a vLLM that was killed left behind: the next one binds the path, and fails on a file there."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(socket.lstat().st_mode):
            socket.unlink()
