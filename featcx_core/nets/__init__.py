"""What computes: targets cut at a layer, disentanglers, trunks; never how they are trained."""
