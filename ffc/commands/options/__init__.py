"""What several commands share: options, arguments, and how progress is shown."""
