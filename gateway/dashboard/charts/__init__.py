"""Charts as plain data for the templates: places are percentages of the plot, as SVG takes them."""
