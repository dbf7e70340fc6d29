"""Tables as data, how they are written as text, Markdown and HTML, and the frame of every page."""
