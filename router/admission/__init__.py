"""admit: what a tenant and a key may use, and whose request a busy engine takes next."""

from router.admission.admission import LARGE, Admission, cost, most
from router.admission.exchange import Alone, CountExchange
from router.admission.hours import Hours
from router.admission.loan import Loan
from router.admission.queue import Patience, Queue
from router.admission.tickets import FREE, Ticket

__all__ = [
    "FREE",
    "LARGE",
    "Admission",
    "Alone",
    "CountExchange",
    "Hours",
    "Loan",
    "Patience",
    "Queue",
    "Ticket",
    "cost",
    "most",
]
