"""Anthropic's Messages API."""

import orjson

from router.errors import RouterError
from router.limits import Limits
from router.resolution import Target
from router.surfaces.chat.order import constrain
from router.surfaces.messages.answers import StreamedMessage, refusal, rewrite
from router.surfaces.messages.question import parse
from router.surfaces.surface import Order, Question, Rewritten


class Messages:
    name = "messages"
    path = "/v1/messages"
    upstream = "/v1/chat/completions"
    prefix = "msg_"
    optional = False

    def parse(self, body: bytes, limits: Limits) -> Question:
        return parse(body)

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        return constrain(question, target, salt_secret)

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        return rewrite(data, order, answer_id)

    def streamed(self, order: Order, answer_id: str) -> StreamedMessage:
        return StreamedMessage(order, answer_id)

    def refusal(self, error: RouterError) -> bytes:
        return orjson.dumps(refusal(error))
