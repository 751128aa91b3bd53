"""The replay model server: a recorded stream again, for every request."""
