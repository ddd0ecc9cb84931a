"""Where results lie and when they count: keys, versions of code, artifacts, pruning."""
