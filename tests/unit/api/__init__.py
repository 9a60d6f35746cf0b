"""The dialects and what errors look like."""
