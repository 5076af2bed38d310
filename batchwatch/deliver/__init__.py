"""Claim what is due from the outbox, send it, and write down what became of it."""
