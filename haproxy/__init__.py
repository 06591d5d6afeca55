"""What HAProxy reads: its configuration, the SPOE engine and the error pages."""
