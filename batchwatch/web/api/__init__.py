"""The REST API under ``/api/v1``: what the store holds and the daemon can do, as JSON."""
