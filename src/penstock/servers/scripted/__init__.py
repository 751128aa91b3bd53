"""A model server that needs no model: it streams what a small script says (docs/scripted.md). `python -m penstock.servers.scripted`."""
