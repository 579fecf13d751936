"""Where the parts meet: the only code that knows concrete implementations."""
