"""Passes: graph in, better graph out; see ``base`` for the contract, ``catalog`` for the order."""
