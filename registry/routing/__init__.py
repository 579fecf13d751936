"""g(z): which rule answers a request, and the proof of it for all requests at once."""
