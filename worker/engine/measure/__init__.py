"""What is measured of a model: size, cost, latency, memory, accuracy, fidelity. Nothing here changes a graph."""
