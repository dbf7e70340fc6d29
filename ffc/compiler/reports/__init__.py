"""What a compile did, as data and as JSON, a table, Markdown or HTML."""
