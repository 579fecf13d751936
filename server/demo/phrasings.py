"""How people ask for what the demo does: in training, and (never the same words) when held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Phrasings:
    """`do` completes "Please …"; `say` stands alone. {m} money, {v} vendor, {d} another currency."""

    openers: tuple[str, ...]
    enders: tuple[str, ...]
    do: Mapping[str, tuple[str, ...]]
    say: Mapping[str, tuple[str, ...]]


# fmt: off
SEEN: Final = Phrasings(
    openers=("", "", "", "please ", "could you ", "can you ", "we need to ", "I want to ", "hi, please ",
             "kindly ", "hello, could you ", "the client asks us to "),
    enders=(".", ".", "", "", "?", "!", " today.", " this week.", " before noon.", " as soon as possible.",
            ", thanks.", " for the finance desk."),
    do={
        "transfer": (
            "transfer {m} to {v}", "send {m} to {v}", "send {v} {m}", "wire {m} to {v}", "move {m} to {v}",
            "make a transfer of {m} to {v}", "start a bank transfer to {v} for {m}",
            "set up a wire to {v} over {m}",
            "transfer to {v} the sum of {m}", "remit {m} to the account of {v}",
            "pay out {m} to {v} by transfer",
            "pay {m} to {v}", "pay {v} {m}",
        ),
        "payables": (
            "settle the invoice from {v} for {m}", "pay the {v} invoice of {m}",
            "schedule the bill from {v}, {m}",
            "book the supplier invoice of {m} from {v}", "clear the open bill of {m} with {v}",
            "process the payable of {m} to {v}", "add the invoice from {v} over {m} to the payment run",
            "approve the supplier bill from {v} at {m}", "handle the invoice over {m} that {v} sent",
            "queue the {m} invoice from {v}",
        ),
        "budget": (
            "check the budget for {m} at {v}", "reserve {m} of budget for {v}",
            "see if the budget covers {m} for {v}",
            "set aside a budget of {m} for {v}", "plan {m} in the budget for {v}",
            "add {m} to the {v} budget",
            "make sure {v} fits the budget with {m}", "hold {m} from the budget for work with {v}",
            "raise the budget line for {v} by {m}",
        ),
        "exchange_rate": (
            "quote the exchange rate to {d} for {m} owed to {v}", "convert {m} for {v} into {d}",
            "get the rate to {d} for {m}, client {v}",
            "look up the exchange rate for {m} to {d} for {v}",
            "exchange {m} to {d} on behalf of {v}", "fetch the {d} rate for {m} to {v}",
            "find the currency rate for {v}, {m} into {d}", "price {m} in {d} for {v}",
            "change {m} into {d} for {v}",
            "ask for the {d} rate, {v} pays {m}", "turn {m} of {v} into {d}",
        ),
        "ledger": (
            "post {m} from {v} to the ledger", "record {m} against {v} in the ledger",
            "book {m} for {v} in the ledger",
            "enter {m} under {v} in the general ledger", "add a ledger entry for {v} of {m}",
            "show the ledger entry of {m} for {v}", "write {m} to the ledger account of {v}",
            "find the ledger line for {v} with {m}", "reconcile {m} with the ledger for {v}",
        ),
    },
    say={
        "transfer": (
            "{v} should receive {m} by transfer", "a transfer of {m} to {v} is due", "{m} must go to {v}",
            "transfer: {v}, {m}", "{v} is waiting for our transfer of {m}",
            "new transfer for {v}, amount {m}",
        ),
        "payables": (
            "{v} sent us an invoice for {m}", "the bill from {v} is {m}", "invoice from {v}: {m}",
            "we owe {v} {m} for last month's invoice", "an invoice of {m} from {v} is open",
            "payables: {v}, {m}",
        ),
        "budget": (
            "is there budget for {m} with {v}", "does the budget allow {m} for {v}", "budget: {v}, {m}",
            "how much budget is left for {v} after {m}", "{v} asks for a budget of {m}",
            "can the team spend {m} of its budget on {v}",
        ),
        "exchange_rate": (
            "what is the exchange rate to {d} for {m} to {v}", "{v} wants {m} in {d}, at which rate",
            "how much is {m} in {d} for {v}", "exchange rate: {v}, {m} to {d}",
            "which {d} rate applies to {m} for {v}",
            "into {d}: {m} for {v}, what is the rate", "{v} pays {m}, what is that in {d}",
        ),
        "ledger": (
            "where is the ledger entry of {m} for {v}", "ledger: {v}, {m}",
            "the ledger should show {m} for {v}",
            "is {m} from {v} in the ledger", "a ledger entry for {v} over {m} is missing",
        ),
    },
)

# Held out: none of these sentences, openers or endings occurs in any training row, of the base or of a
# tenant.
UNSEEN: Final = Phrasings(
    openers=("", "", "let us ", "would you ", "our treasurer wants to ", "good morning, please ",
             "I would like you to "),
    enders=(".", "", "?", " by Friday.", " right away.", ", thank you.", " if possible."),
    do={
        "transfer": (
            "forward {m} to {v}", "arrange for a transfer to {v}: {m}",
            "issue a wire of {m} in favour of {v}",
            "have {m} sent over to {v}", "execute the transfer of {m} that {v} expects",
        ),
        "payables": (
            "take care of what {v} billed us, {m} on the invoice",
            "put the {m} bill of {v} into the next run",
            "close the outstanding invoice with {v} worth {m}", "release the supplier invoice by {v} at {m}",
        ),
        "budget": (
            "confirm that {m} for {v} is within budget", "allocate {m} of this year's budget to {v}",
            "review whether our budget has {m} left for {v}", "earmark {m} in the department budget for {v}",
        ),
        "exchange_rate": (
            "work out the exchange rate when {m} becomes {d} for {v}", "swap {m} into {d} for {v}",
            "obtain a rate in {d}, the sum is {m} and the client is {v}",
        ),
        "ledger": (
            "put {m} on the ledger under the name {v}", "see to it that the ledger lists {v} with {m}",
            "log {m} for {v} as a ledger posting",
        ),
    },
    say={
        "transfer": ("I owe a transfer to {v}, namely {m}", "{v} gets {m}, wire it"),
        "payables": ("there is a bill on my desk: {v}, {m}", "the supplier {v} invoiced {m}"),
        "budget": ("would {m} for {v} break the budget", "my budget question: {m} for {v}"),
        "exchange_rate": ("into {d}, what rate do we get on {m} for {v}",
        "{v} asks which rate {m} has in {d}"),
        "ledger": ("the auditor looks for {m} from {v} in our ledger", "does our ledger know {v} and {m}"),
    },
)
# fmt: on
