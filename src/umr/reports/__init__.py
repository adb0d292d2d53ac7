"""What evaluations say to people: one compared with others, query by query, and the page about one: `umr compare`, `umr report`."""
