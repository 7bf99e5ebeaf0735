"""Who becomes `champion`: policy, verdict, gate, versions, page, history, copies. Nothing here scores an image.

Read in this order: ``policy`` says what is asked, ``verdict`` tests one rule on arrays, ``gate`` chooses the rows that
both models are compared on and asks every rule, ``promote`` refuses or moves the alias.
"""
