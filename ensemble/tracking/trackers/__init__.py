"""Who can be told of a run, a file each: the keys under `tracking`, what they need, and how they are built. This file imports none of them."""
