"""`kat allowlist`: HAProxy's own ACLs, kept equal to the IP grants that stand."""
