"""The steps. File names begin with the revision, four digits, without a gap."""
