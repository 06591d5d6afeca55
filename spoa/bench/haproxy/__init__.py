"""What the gate costs from end to end: HTTP clients, a real HAProxy, its own rules.

    wrk, or paced.py --HTTP--> HAProxy --SPOP--> who says yes --> Redis

The same HAProxy with the same rules asks nobody, an agent that thinks nothing, the agent, or Redis
by itself; the application is a line in HAProxy, too. What is left between them is the question.
"""

from spoa.bench.haproxy.measure import run

__all__ = ["run"]
