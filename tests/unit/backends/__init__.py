"""Rules about backends, what they answer, and what discovery makes of it."""
