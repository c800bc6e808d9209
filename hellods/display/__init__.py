"""What people look at: a report as a page and as Markdown, and the card of an archive. Made from JSON alone."""
