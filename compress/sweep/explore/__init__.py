"""Where a network can give: how much each layer tolerates, and the smallest network within a bound."""
