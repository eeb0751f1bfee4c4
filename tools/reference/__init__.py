"""What the reference pages are made of, a module for each page."""
