"""What a diff or a check found, as text, JSON, Markdown, JUnit, SARIF or annotations."""
