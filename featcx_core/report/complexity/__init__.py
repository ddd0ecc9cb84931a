"""The page of the validity check Task-n."""
