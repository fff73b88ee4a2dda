"""Reads a run directory, draws and writes. Imports nothing above data."""
