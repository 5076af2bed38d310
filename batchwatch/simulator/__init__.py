"""A LlamaCloud of our own: the upstream API on a local port, as an independent witness.

It drives the demo, the tests and the benchmarks, and is faithful enough that the official SDK
works against it unchanged. Of batchwatch it knows the clock and the log alone, so that no mistake
of the client can hide in both.

What is true::

    scenarios   how many batches, of which nature, and what goes wrong
    life        the whole life of a batch, drawn at its birth from the seed
    timeline    from simulated seconds to moments and timestamps
    world       directories, batches and jobs: the truth at any moment
    history     the truth, written down

What is told::

    api/        the routes, which show the truth, or with bad luck something else
    trouble     what goes wrong with each request, of the kinds in ``faults``
    webhooks    upstream's own notifications
    server      all of it on a port

Given a seed, lives are the same on every run. Which request meets which fault depends on the
order of requests as well.
"""

from batchwatch.simulator.faults import KINDS as FAULT_KINDS
from batchwatch.simulator.faults import Switch
from batchwatch.simulator.life import FileLife, JobLife, Nature, Step, a_life
from batchwatch.simulator.scenarios import SCENARIO_NAMES, SCENARIOS, Scenario
from batchwatch.simulator.server import DEFAULT_API_KEY, Simulator, serve

__all__ = [
    "DEFAULT_API_KEY",
    "FAULT_KINDS",
    "SCENARIOS",
    "SCENARIO_NAMES",
    "FileLife",
    "JobLife",
    "Nature",
    "Scenario",
    "Simulator",
    "Step",
    "Switch",
    "a_life",
    "serve",
]
