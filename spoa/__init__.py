"""An HAProxy SPOE agent that consumes single-use access tokens in Redis."""
