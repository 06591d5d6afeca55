"""A client of HAProxy's Runtime API, the `stats socket` of its configuration."""
