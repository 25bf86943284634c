"""Small faults in rewrite rules, made one at a time: do the tests of the rule notice each?"""
