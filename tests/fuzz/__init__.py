"""
Fuzzing: whatever bytes come in, a value or a typed error comes out.

``targets`` has a function for each parser: it raises nothing, except AssertionError where a
property is broken. ``corpus`` keeps inputs for each of them, which ``test_targets`` runs through
with every test run. ``python -m tests.fuzz`` looks for new ones, led by coverage (``make fuzz``).
"""
