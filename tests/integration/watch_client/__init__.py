"""The worker's end of the watch against a control plane that a test speaks for."""
