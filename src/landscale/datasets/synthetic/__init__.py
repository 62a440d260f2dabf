"""Made-up landscapes in the format of BigEarthNet, for demonstrations and tests."""
