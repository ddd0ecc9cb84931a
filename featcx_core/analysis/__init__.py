"""Components in, tidy tables out: one analysis a file."""
