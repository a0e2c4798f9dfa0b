"""The clauses, one Markdown page a chapter, their derivations, and what reads and shows them."""
