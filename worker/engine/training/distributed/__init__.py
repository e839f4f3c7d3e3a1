"""Training in several processes, one for each GPU: distributed data parallel, as torchrun would start it.

`launch` starts them and passes on what they tell, `__main__` is one of them, and `team` is what training knows of it.
"""
