"""What a run would compute, and what that would take."""
