"""Many streams for a long time, among clients that behave badly."""
