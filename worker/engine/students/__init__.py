"""Students: smaller networks made from a graph, to be trained. Nothing is trained here."""
