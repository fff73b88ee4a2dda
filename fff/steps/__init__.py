"""The single steps of a campaign, each useful alone: label, train, evaluate, dynamics.

Each takes the sections of a campaign's config, goes on where it was left, repeats nothing that is done, and
overwrites nothing.
"""
