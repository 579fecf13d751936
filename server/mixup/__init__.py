"""Does a server that holds many LoRA adapters answer with the wrong one? Asked from outside."""
