"""Launchers of the servers that mezzo is compared with; they run in environments of their own."""
