"""Scoring in bulk: files of rows in, files of answers out, with an archive and no server.

Files ──sources──▶ Chunks (so many rows of one file) ──Scorer──▶ one part of the output each

A chunk is what is read, packed and written at once, and what is done again after a fault. Its part has a
name of its own and appears whole or not at all, so that nothing is lost and nothing is there twice.
"""
