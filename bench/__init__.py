"""What we measure. ``python -m bench`` runs all of it; each module runs alone too.

Every row stands beside a baseline of the same run, because absolute times say as much about the machine as about us.
"""
