"""OpenAI's chat completions."""

from router import problems
from router.errors import RouterError
from router.limits import Limits
from router.resolution import Target
from router.surfaces.chat.order import constrain
from router.surfaces.chat.question import parse
from router.surfaces.chat.stream import StreamedAnswer
from router.surfaces.chat.whole import rewrite
from router.surfaces.surface import Order, Question, Rewritten


class Chat:
    name = "chat"
    path = "/v1/chat/completions"
    upstream = "/v1/chat/completions"
    prefix = "chatcmpl-"
    optional = False

    def parse(self, body: bytes, limits: Limits) -> Question:
        return parse(body, most_choices=limits.choices)

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        return constrain(question, target, salt_secret)

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        return rewrite(data, order, answer_id)

    def streamed(self, order: Order, answer_id: str) -> StreamedAnswer:
        return StreamedAnswer(order, answer_id)

    def refusal(self, error: RouterError) -> bytes:
        return problems.body(error)
