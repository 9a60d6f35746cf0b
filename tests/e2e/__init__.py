"""The whole gateway as processes, called by real clients."""
