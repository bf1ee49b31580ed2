"""What a command stands on: profiles of clusters, data sets."""
