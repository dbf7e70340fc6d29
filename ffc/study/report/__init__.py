"""What a study found: as data, tables, plots and one HTML page."""
