"""Which rows are train, val and test: long-tail construction, assignment, stratification, published lists."""
