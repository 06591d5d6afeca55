"""Tokens in Redis: what they are, how they are issued and how they are consumed.

Knows nothing of HAProxy. A web application that issues tokens imports `tokens.issue` alone, and
perhaps `tokens.token` (`mint`, `is_well_formed`, `digest`, `kid`), which is pure. Everything
else serves the agent and its commands, and may change with any release.

This file imports nothing: redis takes 0.1 s to load, which who wants the pure parts need not wait.
"""
