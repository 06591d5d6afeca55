"""What an operator may set, where it is read from, and how mistakes are worded."""
