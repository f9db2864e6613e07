"""What a snapshot's fields hold, and how far they have moved."""
