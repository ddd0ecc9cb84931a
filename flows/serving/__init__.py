"""The flows in Prefect's UI: deployments, forms, schedules, reports."""
