"""The formulas of LLM policy optimisation, each written once, in NumPy.

Every function runs on float64 arrays, on object arrays of certified balls and on object arrays of
SymPy expressions; :mod:`reference.numbers` is what makes that one text run on all of them.
"""
