"""The sections of a judgement, a file each: what is worked out of the votes, its record, and how it is shown. This file imports none of them."""
