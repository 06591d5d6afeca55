"""What `kat check` looks at: the configuration, Redis, the sockets and HAProxy's files."""
