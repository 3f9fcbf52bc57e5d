"""A big network's label maps, taught to a small one."""
