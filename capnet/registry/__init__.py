"""What becomes a registered version: candidate, artifacts, cards, register. Moving an alias is promotion's, scoring is
serving's.
"""
