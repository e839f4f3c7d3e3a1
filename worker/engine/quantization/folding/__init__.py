"""Which channels of a graph's tensors may be scaled with nothing lost, and the folding of such scales into weights."""
