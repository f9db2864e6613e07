"""What the columns of a log are: label, time, whom and what, fields, leaks; each guess with its reason."""
