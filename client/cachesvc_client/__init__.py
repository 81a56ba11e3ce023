"""The thin client of cachesvc."""
