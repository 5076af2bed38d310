"""batchwatch watches LlamaCloud batches and tells people and programs what became of them.

The pipeline, in order:

    llamacloud  asks the upstream API, within its rate limits
    watching    discovers batches, looks again at the active ones, fetches results
    domain      decides what truly changed, and which events that makes
    store       writes batches, transitions, events and deliveries in one transaction
    deliver     claims what the outbox owes, signs it, sends it, settles it
    web         says whether all of this is well
    daemon      wires it together; settings, clock, log and metrics are the ground
    simulator   stands in for upstream; demo shows the whole pipe against it
"""

__version__ = "0.1.0"
