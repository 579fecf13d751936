"""What the pipeline is told of a stream, the same on every surface that is made of chat's chunks."""

from router.metering import Usage
from router.surfaces.chat.reading import Reading
from router.surfaces.surface import Order


class Told:
    def __init__(self, order: Order, answer_id: str) -> None:
        self._order = order
        self._id = answer_id
        self._reading = Reading(order)

    @property
    def usage(self) -> Usage | None:
        return self._reading.usage

    @property
    def contents(self) -> list[str]:
        return self._reading.contents

    @property
    def contents_before_end(self) -> list[str]:
        return self._reading.contents_before_end

    @property
    def finish_reasons(self) -> list[str]:
        return self._reading.finish_reasons
