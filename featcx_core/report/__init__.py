"""What a reader sees: pages, sections, figures."""
