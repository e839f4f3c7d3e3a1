"""Health: is the process alive, are its parts reachable, and what it counts for Prometheus."""
