"""How a picture becomes noise, and how noise becomes a picture again: schedules, samplers, one loop."""
