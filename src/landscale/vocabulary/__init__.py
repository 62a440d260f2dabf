"""Vocabulary of the field: bands and band sets, nomenclatures, and the names and colours of their classes."""
