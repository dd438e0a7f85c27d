"""How many cores a rate of requests needs: a server simulated event by event, with the real packer."""
