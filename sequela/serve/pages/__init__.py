"""What people read: HTML pages, SVG charts and tables on the terminal."""
