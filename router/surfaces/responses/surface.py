"""OpenAI's Responses API."""

from router import problems
from router.errors import RouterError
from router.limits import Limits
from router.resolution import Target
from router.surfaces.chat.order import constrain
from router.surfaces.responses.answer import rewrite
from router.surfaces.responses.question import parse
from router.surfaces.responses.stream import StreamedResponse
from router.surfaces.surface import Order, Question, Rewritten


class Responses:
    name = "responses"
    path = "/v1/responses"
    upstream = "/v1/chat/completions"
    prefix = "resp_"
    optional = False

    def parse(self, body: bytes, limits: Limits) -> Question:
        return parse(body)

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        return constrain(question, target, salt_secret)

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        return rewrite(data, order, answer_id)

    def streamed(self, order: Order, answer_id: str) -> StreamedResponse:
        return StreamedResponse(order, answer_id)

    def refusal(self, error: RouterError) -> bytes:
        return problems.body(error)
