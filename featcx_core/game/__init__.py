"""The game of the components: coalitions, exact and sampled values, interactions."""
