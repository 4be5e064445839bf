"""What an endurance run is made of: the processes in it, and the eyes on them."""
