"""Measure batchwatch beside the bare alternatives, on one machine, in one run.

    requests  how many requests a pass costs, beside one GET for each batch
    read      batches read and compared per second, beside a loop that only reads them
    deliver   notifications per second, durable and signed, beside a loop that only posts them
    hints     from upstream's change to the receiver, by upstream's own webhook
    replicas  notifications per second by one replica and by two over one PostgreSQL
    write     changes and acknowledgements per second on both engines, and writers in turns
    sizes     what a batch takes on PostgreSQL, by table and by index
    budget    a simulated day of a thousand watches: what they ask LlamaCloud for
    soak      a simulated month on both engines, with what is old removed: whether the store grows
    idle      memory at rest, and the time from start to the first request

Whatever is compared runs in turns, A B C A B C, so that a neighbour's load falls on all alike;
what is reported is a median, and a ratio taken turn by turn. The other end of each connection is
a process of its own that does as little as it can. ``docs/benchmarks.md`` has the method and the
figures.
"""
