"""Programs of ranks that are watched, checked, or keep copies of each other."""
