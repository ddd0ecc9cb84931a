"""The way in from a notebook: a network in hand, or a finished run, as one `Analysis`."""
