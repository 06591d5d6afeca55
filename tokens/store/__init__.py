"""The ways to Redis: one primary, what Sentinels lead to, a cluster; clients for commands."""
