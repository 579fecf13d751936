"""What is learned from: conversations in JSON Lines, checked before anything is trained."""

from trainer.datasets.conversations import Conversation, Dataset, Example, Message, Role, load_dataset
from trainer.datasets.leaks import refuse_leaks

__all__ = ["Conversation", "Dataset", "Example", "Message", "Role", "load_dataset", "refuse_leaks"]
