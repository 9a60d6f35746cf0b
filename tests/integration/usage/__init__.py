"""``UsageService`` over real sockets, with a real Postgres and a real Redis."""
