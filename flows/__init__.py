"""Recipes, deployments and the command line."""
