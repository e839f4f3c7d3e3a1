"""Channel groups: which indices of a graph's tensors can be removed together, exactly, and their removal."""

from worker.engine.graph.channels.alike import RECURRENT, Group, Member
from worker.engine.graph.channels.groups import Groups, find_groups

__all__ = ["RECURRENT", "Group", "Groups", "Member", "find_groups"]
