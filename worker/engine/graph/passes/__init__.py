"""Clean-ups that change how a graph is written, never what it computes. One file is one pass.

A pass changes the graph it is given and returns notes for the user, mostly none.
"""
