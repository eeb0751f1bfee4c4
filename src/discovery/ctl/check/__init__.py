"""The black-box check: whether a live server keeps the service's promises."""
