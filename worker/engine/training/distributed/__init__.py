"""Training in several processes, one for each GPU: distributed data parallel, as torchrun would start it.

`launch` starts them and passes on what they tell, `__main__` is one of them, and `team` is what training knows of it.
Updates are those of one process with the same samples, but for what sees the samples of one process only: statistics
of BatchNormalization, means over a part of the labels, and clipped gradients of quantization scales.
"""
