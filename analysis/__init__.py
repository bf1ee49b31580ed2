"""Results -> tables, figures and pages. What lies here are the commands; their parts are in the rooms below."""
