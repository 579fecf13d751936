"""What is learned from and asked: rows of five shapes, checked before anything is trained."""

from trainer.datasets.leaks import refuse_leaks
from trainer.datasets.load import load_conversations, load_rows
from trainer.datasets.messages import Message, Role, ToolCall
from trainer.datasets.rows import (
    Case,
    Conversation,
    Dataset,
    Example,
    Labelled,
    Pair,
    Row,
    Shape,
    Steps,
    Tools,
    examples,
)
from trainer.datasets.sources import Source, locate

__all__ = [
    "Case",
    "Conversation",
    "Dataset",
    "Example",
    "Labelled",
    "Message",
    "Pair",
    "Role",
    "Row",
    "Shape",
    "Source",
    "Steps",
    "ToolCall",
    "Tools",
    "examples",
    "load_conversations",
    "load_rows",
    "locate",
    "refuse_leaks",
]
