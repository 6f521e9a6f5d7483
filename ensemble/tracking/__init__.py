"""Listeners of the event stream: the console, the event log on disk, Weights & Biases. This file imports none of them."""
