"""Every training method on the demo base, measured on generated answers: ``make methods``."""
