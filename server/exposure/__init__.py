"""Which answers a bug of the engine could have touched, found out after the fact from records and log."""
