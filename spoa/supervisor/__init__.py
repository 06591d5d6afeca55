"""The parent process: starts the workers and the private Redis, watches them, reports on them."""
