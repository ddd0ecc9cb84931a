"""The page of many targets."""
