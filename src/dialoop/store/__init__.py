"""The store under a home directory: model versions with their lineage, runs and reports."""
