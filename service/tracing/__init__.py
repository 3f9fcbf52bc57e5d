"""Traces of requests, where they are asked for: one span for each, and below it what was measured of its images."""
