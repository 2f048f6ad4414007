"""How a caller gets a session with RAP."""
