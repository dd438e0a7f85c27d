"""Measurements in this process, without a server; timing.py is how all of them time a call."""
