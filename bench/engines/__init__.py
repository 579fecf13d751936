"""What real engines cost and give."""
