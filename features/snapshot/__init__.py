"""Published snapshots: what a manifest says, what rows followed from, and how one becomes visible."""
