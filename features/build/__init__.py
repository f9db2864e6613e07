"""The passes of a feature build and what runs in their tasks; an engine decides where they run."""
