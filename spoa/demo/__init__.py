"""The program shown at work: HAProxy, the agent and Redis before an application, and a portal."""
