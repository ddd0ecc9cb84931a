"""Images with splits: where they come from, how they are read, drawn and augmented."""
