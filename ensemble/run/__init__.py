"""Making a run: from a configuration through rounds of tasks to a judged folder."""
