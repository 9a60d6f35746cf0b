"""What both planes agree on."""
