"""The HTTP edge under attack: rows A1 and A2 of the abuse matrix, with raw sockets, on one gateway of its own."""
