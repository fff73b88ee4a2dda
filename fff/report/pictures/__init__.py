"""The figures of a report: each is drawn from a `Record`, or a sentence says why there is none."""
