"""forward: an engine is asked at the paths of ``router.surfaces`` only, and its words stay behind.

Nothing of the client's request travels on but the body that ``router.surfaces`` wrote: vLLM reads
headers that replace the model (X-Amzn-SageMaker-Adapter-Identifier) and serves paths without a key.
"""

from router import validation
from router.errors import EndpointUnsupported, EngineAnswered, EngineRejectedRequest
from router.ports import EngineAnswer
from router.surfaces.surface import Order, Rewritten


def address(url: str, path: str) -> str:
    return url.rstrip("/") + path


def check_status(status: int, *, optional: bool = False, media: bool = False) -> None:
    """Raises EngineRejectedRequest (the request's fault, perhaps that of its ``media``), EndpointUnsupported
    (of an ``optional`` path) or EngineAnswered; never with the engine's words."""
    if optional and status in (404, 405, 501):
        raise EndpointUnsupported
    if status in (400, 413):
        raise EngineRejectedRequest(media=media)
    if status != 200:
        raise EngineAnswered


def judge(whole: Rewritten, order: Order) -> None:
    """Raises OutputInvalid, OutputTruncated, OutputRefused: what the policy or the client does not take."""
    for choice in whole.choices:
        if not choice.tool_calls:  # their own schemas were checked by the surface
            validation.check(
                order.policy, choice.content, choice.finish_reason, refused=choice.refused, own=order.own
            )


async def read_all(answer: EngineAnswer, limit: int) -> bytes:
    """The whole body. Raises EngineAnswered beyond ``limit`` bytes."""
    pieces: list[bytes] = []
    size = 0
    while piece := await answer.read():
        size += len(piece)
        if size > limit:
            raise EngineAnswered
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
