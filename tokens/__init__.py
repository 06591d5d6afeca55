"""Tokens in Redis: what they are, how they are issued and how they are consumed.

Knows nothing of HAProxy. A web application that issues tokens imports this package alone.
"""
