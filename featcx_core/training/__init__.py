"""How nets learn: the one loop, its optimiser and checkpoints, and what each kind of net is taught."""
