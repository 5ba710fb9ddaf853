"""How fast the catalog answers: a store that is made up, and the cookbook's queries on it."""
