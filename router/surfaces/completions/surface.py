"""OpenAI's legacy completions."""

from router import problems
from router.errors import RouterError
from router.limits import Limits
from router.resolution import Target
from router.surfaces.completions.answers import StreamedCompletion, rewrite
from router.surfaces.completions.order import constrain
from router.surfaces.completions.question import parse
from router.surfaces.surface import Order, Question, Rewritten


class Completions:
    name = "completions"
    path = "/v1/completions"
    upstream = "/v1/completions"
    prefix = "cmpl-"
    optional = False

    def parse(self, body: bytes, limits: Limits) -> Question:
        return parse(body, most_choices=limits.choices)

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        return constrain(question, target, salt_secret)

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        return rewrite(data, order, answer_id)

    def streamed(self, order: Order, answer_id: str) -> StreamedCompletion:
        return StreamedCompletion(order, answer_id)

    def refusal(self, error: RouterError) -> bytes:
        return problems.body(error)
