"""Many runs at once, from their folders alone: what there is, how far each has come, what it cost; and one that goes on, followed."""
