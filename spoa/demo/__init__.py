"""The program shown at work: HAProxy, the agent and Redis in front of a small web application."""
