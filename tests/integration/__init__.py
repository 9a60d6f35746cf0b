"""Parts of a plane with the real servers that they talk to."""
