"""Parsers against whatever bytes may come."""
