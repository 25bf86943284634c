"""Random graphs: models of many kinds, made from numbers, whose results several judges must share.

``python -m tests.fuzz --help`` from the project's root says how to run them; docs/fuzzing.md says
what they hold and what counts as a difference.
"""
