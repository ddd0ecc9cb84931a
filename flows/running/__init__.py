"""What carries a run out: servers, processes, devices."""
