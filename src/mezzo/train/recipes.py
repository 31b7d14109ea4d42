"""The recipes that mezzo has: one that shows that all works, the one that made nano, and the larger one."""
