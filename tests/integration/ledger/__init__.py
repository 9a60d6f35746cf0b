"""The ledger, the revocations outbox and retention against real servers."""
