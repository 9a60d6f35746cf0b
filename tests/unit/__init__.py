"""Pure rules, one module at a time."""
