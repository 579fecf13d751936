"""One endpoint each: what a client may ask there, what an engine is asked, and what the answer may carry."""
