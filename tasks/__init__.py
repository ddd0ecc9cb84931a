"""Prefect tasks: one thin task a stage, spec and references in, reference out."""
