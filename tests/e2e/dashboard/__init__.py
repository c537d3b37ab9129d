"""A package so that what all of its tests share, the browser, ends with the last of them."""
