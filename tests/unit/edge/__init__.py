"""The edge towards clients: routes, addresses, interrupts."""
