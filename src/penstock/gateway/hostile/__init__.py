"""Streams that misbehave on purpose: slicing, faults, tapes. Wrappers round the byte stream, absent from the path when off."""
