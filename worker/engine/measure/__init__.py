"""What is measured of a graph or a file: size, cost, latency, memory, accuracy, fidelity. Nothing here changes a graph."""
