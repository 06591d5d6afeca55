"""How fast the agent is: an SPOP load generator and what it takes to measure with it.

`python -m bench` starts a private Redis and the real agent, drives them, prints a table. README.md
beside this file says what is measured and what is not.
"""
