"""How fast the agent is: an SPOP load generator and what it takes to measure with it.

It starts a private Redis and the real agent, drives them, and prints tables. bench/README.md says
what is measured and what is not.
"""
