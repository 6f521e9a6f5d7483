"""Stored runs in, numbers out: votes are read here, runs judged, checked, compared and put side by side."""
